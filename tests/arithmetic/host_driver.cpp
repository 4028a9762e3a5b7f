// A CUDA driver whose device is this machine: modules are shared libraries of host-compiled kernels (device_host.hpp),
// and a launch calls them. Loaded as libcuda.so.1, so that NVIDIA's own bindings marshal every argument.
#include <dlfcn.h>

#include <cstdint>
#include <cstring>
#include <string>

namespace {

struct Symbol {
    const char* name;
    void* function;
};

using HostKernel = void (*)(const unsigned* grid, unsigned threads, void** arguments);

int fail_with = 0;
uint64_t launches = 0;
thread_local void* context = nullptr;
thread_local int capture_mode = 0;

}  // namespace

extern "C" {

// For the tests: the status of all launches to come.
void host_driver_fail(int status) { fail_with = status; }
uint64_t host_driver_launches() { return launches; }

int cuInit(unsigned) { return 0; }

int cuDriverGetVersion(int* version) {
    *version = 13000;
    return 0;
}

// A thread has no context at first, as in CUDA.
int cuCtxGetCurrent(void** current) {
    *current = context;
    return 0;
}

int cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return 0;
}

int cuDevicePrimaryCtxRetain(void** primary, int) {
    static int only;
    *primary = &only;
    return 0;
}

int cuCtxSetCurrent(void* to) {
    context = to;
    return 0;
}

// NVRTC asks for a table of NVIDIA's own: there is none.
int cuGetExportTable(const void** table, const void*) {
    *table = nullptr;
    return 500;
}

// Nothing is captured here, but the mode is kept, so that a test sees it put back.
int cuThreadExchangeStreamCaptureMode(int* mode) {
    const int before = capture_mode;
    capture_mode = *mode;
    *mode = before;
    return 0;
}
int host_driver_capture_mode() { return capture_mode; }

int cuFuncLoad(void* function) { return function != nullptr ? 0 : 400; }

// The image is the name of a shared library.
int cuModuleLoadData(void** module, const void* image) {
    *module = dlopen(static_cast<const char*>(image), RTLD_NOW | RTLD_LOCAL);
    return *module != nullptr ? 0 : 200;
}

int cuModuleGetFunction(void** function, void* module, const char* name) {
    *function = dlsym(module, (std::string(name) + "_on_host").c_str());
    return *function != nullptr ? 0 : 500;
}

int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared_bytes, void*, void** arguments, void** extra) {
    ++launches;
    if (fail_with != 0) return fail_with;
    const bool valid = grid_x > 0 && grid_y > 0 && grid_y < 65536 && grid_z > 0 && grid_z < 65536 && block_x > 0 &&
                       block_x * block_y * block_z <= 1024 && block_y == 1 && block_z == 1 && shared_bytes == 0 &&
                       grid_x < 0x80000000u && arguments != nullptr && extra == nullptr;
    if (!valid) return 1;
    if (context == nullptr) return 201;
    const unsigned grid[] = {grid_x, grid_y, grid_z};
    reinterpret_cast<HostKernel>(function)(grid, block_x, arguments);
    return 0;
}

int cuGetProcAddress_v2(const char* symbol, void** address, int, uint64_t, int* status) {
    const Symbol known[] = {
        {"cuInit", reinterpret_cast<void*>(cuInit)},
        {"cuDriverGetVersion", reinterpret_cast<void*>(cuDriverGetVersion)},
        {"cuGetExportTable", reinterpret_cast<void*>(cuGetExportTable)},
        {"cuCtxGetCurrent", reinterpret_cast<void*>(cuCtxGetCurrent)},
        {"cuCtxSetCurrent", reinterpret_cast<void*>(cuCtxSetCurrent)},
        {"cuDeviceGet", reinterpret_cast<void*>(cuDeviceGet)},
        {"cuDevicePrimaryCtxRetain", reinterpret_cast<void*>(cuDevicePrimaryCtxRetain)},
        {"cuThreadExchangeStreamCaptureMode", reinterpret_cast<void*>(cuThreadExchangeStreamCaptureMode)},
        {"cuFuncLoad", reinterpret_cast<void*>(cuFuncLoad)},
        {"cuModuleLoadData", reinterpret_cast<void*>(cuModuleLoadData)},
        {"cuModuleGetFunction", reinterpret_cast<void*>(cuModuleGetFunction)},
        {"cuLaunchKernel", reinterpret_cast<void*>(cuLaunchKernel)},
    };
    *address = nullptr;
    for (const Symbol& entry : known) {
        if (std::strcmp(symbol, entry.name) == 0) *address = entry.function;
    }
    if (status != nullptr) *status = *address != nullptr ? 0 : 1;
    return *address != nullptr ? 0 : 500;
}

}  // extern "C"
