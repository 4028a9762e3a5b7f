#include "team.hpp"

#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#include <pthread.h>
#define PARTIALSUM_FINDS_OPENMP 1
#endif

#include "float_environment.hpp"

namespace partialsum {

namespace {

// What compilers make of `#pragma omp parallel num_threads(n)`: libgomp's own entry, which LLVM's and Intel's run
// times have as well.
using ParallelRegion = void (*)(void (*body)(void*), void* data, unsigned threads, unsigned flags);

#if defined(PARTIALSUM_FINDS_OPENMP)
std::atomic<bool> forked{false};
const int watches_forks = pthread_atfork(nullptr, nullptr, [] { forked = true; });

ParallelRegion openmp() {
    static std::atomic<ParallelRegion> found{nullptr};
    if (forked || watches_forks != 0) return nullptr;
    ParallelRegion region = found;
    if (region == nullptr) {  // asked again every time: torch may be loaded later
        region = reinterpret_cast<ParallelRegion>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
        found = region;
    }
    return region;
}
#else
ParallelRegion openmp() { return nullptr; }
#endif

struct Call {
    const std::function<void(int)>& work;
    std::atomic<int> members{0};
};

void take_part(void* data) {
    const DefaultFloatEnvironment exact;
    auto* call = static_cast<Call*>(data);
    call->work(call->members.fetch_add(1));
}

}  // namespace

bool joins_openmp() { return openmp() != nullptr; }

void on_threads(int threads, const std::function<void(int member)>& work) {
    Call call{work};
    if (threads <= 1) return take_part(&call);
    if (const ParallelRegion region = openmp()) return region(take_part, &call, static_cast<unsigned>(threads), 0);
    std::vector<std::thread> helpers;
    for (int i = 1; i < threads; ++i) helpers.emplace_back(take_part, &call);
    take_part(&call);
    for (auto& helper : helpers) helper.join();
}

}  // namespace partialsum
