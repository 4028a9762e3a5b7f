// What a host that runs threads one after another cannot see by itself, checked access by access: races within a block and
// between blocks, shared memory read before it was written, misaligned vectors. The kernels are compiled with GCC's
// instrumentation for races (-fsanitize=thread), which calls the functions below in place of its own runtime.
//
// Two accesses of different threads race when no barrier of their block lies between them and one of them writes, unless
// both are atomic. Whichever of them the host happens to run first, the second one finds the mark of the first.
#include <link.h>

#include <cstdint>
#include <cstdio>
#include <string>
#include <unordered_map>

namespace {

struct Access {
    uint64_t epoch = 0;  // what lies between two barriers of one block; each has a number of its own
    uint64_t block = 0;
    int thread = -1;
    bool by_several = false, atomic = false;
};

struct Word {
    uint64_t launch = 0;
    Access read, write;
};

struct Range {
    uintptr_t first = 0, last = 0;
    bool has(uintptr_t at) const { return at >= first && at < last; }
};

uint64_t launch = 0, block = 0, epoch = 0;
int thread = -1;  // of the kernel that is running, or none
Range shared, machine, stack;
std::unordered_map<uintptr_t, Word> words;
std::string findings;  // the first of every kind

void find(const char* what, const char* where, uintptr_t at, int other) {
    if (findings.find(what) != std::string::npos) return;
    char text[200];
    std::snprintf(text, sizeof text, "%s in %s memory: thread %d of block %llu, other thread %d, address %#llx\n", what, where,
                  thread, static_cast<unsigned long long>(block), other, static_cast<unsigned long long>(at));
    findings += text;
}

// Whether an earlier access of another thread is not ordered before this one.
bool unordered(const Access& earlier, bool is_shared, bool atomic) {
    if (earlier.thread < 0 || (earlier.atomic && atomic)) return false;
    if (earlier.block != block) return !is_shared;
    return earlier.epoch == epoch && (earlier.thread != thread || earlier.by_several);
}

void mark(Access& own, bool atomic) {
    const bool again = own.thread >= 0 && own.epoch == epoch && own.block == block;
    const bool by_several = again && (own.by_several || own.thread != thread);
    own = {epoch, block, thread, by_several, atomic};
}

void see_word(uintptr_t at, bool is_shared, bool writes, bool atomic) {
    Word& word = words[at];
    if (word.launch != launch) word = {launch, {}, {}};
    const char* where = is_shared ? "shared" : "global";
    const bool written = word.write.thread >= 0 && word.write.block == block;
    if (is_shared && !written && (!writes || atomic)) find("read of what nothing wrote", where, at, -1);
    if (unordered(word.write, is_shared, atomic)) find("race with a write", where, at, word.write.thread);
    if (writes && unordered(word.read, is_shared, atomic)) find("race with a read", where, at, word.read.thread);
    if (writes) mark(word.write, atomic);
    if (!writes || atomic) mark(word.read, atomic);
}

void see(const void* pointer, size_t bytes, bool writes, bool atomic = false) {
    if (thread < 0) return;
    const auto at = reinterpret_cast<uintptr_t>(pointer);
    if (stack.has(at) || machine.has(at)) return;
    if ((bytes == 4 || bytes == 8 || bytes == 16) && at % bytes != 0) find("misaligned access", "any", at, -1);
    for (uintptr_t word = at / 4; word <= (at + bytes - 1) / 4; ++word) see_word(word * 4, shared.has(at), writes, atomic);
}

// Shared memory is what the kernels' library can write to; `machine` is what the host itself keeps there.
int find_shared(dl_phdr_info* info, size_t, void*) {
    const auto own = reinterpret_cast<uintptr_t>(&thread);
    Range found;
    bool is_own = false;
    for (int i = 0; i < info->dlpi_phnum; ++i) {
        const auto& part = info->dlpi_phdr[i];
        if (part.p_type != PT_LOAD || (part.p_flags & PF_W) == 0) continue;
        const Range range{info->dlpi_addr + part.p_vaddr, info->dlpi_addr + part.p_vaddr + part.p_memsz};
        if (range.has(own)) is_own = true;
        if (range.has(own)) found = range;
    }
    if (is_own) shared = found;
    return is_own ? 1 : 0;
}

}  // namespace

extern "C" {

void checks_begin_launch(const void* first, const void* last) {
    ++launch;
    words.clear();
    machine = {reinterpret_cast<uintptr_t>(first), reinterpret_cast<uintptr_t>(last)};
    if (shared.first == 0) dl_iterate_phdr(find_shared, nullptr);
}
void checks_begin_block() { ++block; }
void checks_begin_epoch() { ++epoch; }
void checks_enter(int running, const void* first, const void* last) {
    thread = running;
    stack = {reinterpret_cast<uintptr_t>(first), reinterpret_cast<uintptr_t>(last)};
}
void checks_leave() { thread = -1; }
void checks_atomic(const void* at, size_t bytes) { see(at, bytes, true, true); }

// What was found since the last call; an empty text is what one hopes for.
const char* checks_findings() {
    static std::string told;
    told.swap(findings);
    findings.clear();
    return told.c_str();
}

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_read_range(const void* at, size_t bytes) { see(at, bytes, false); }
void __tsan_write_range(const void* at, size_t bytes) { see(at, bytes, true); }
#define PARTIALSUM_SEE(bytes)                                                                    \
    void __tsan_read##bytes(const void* at) { see(at, bytes, false); }                           \
    void __tsan_write##bytes(const void* at) { see(at, bytes, true); }                           \
    void __tsan_unaligned_read##bytes(const void* at) { see(at, bytes, false); }                 \
    void __tsan_unaligned_write##bytes(const void* at) { see(at, bytes, true); }
PARTIALSUM_SEE(1)
PARTIALSUM_SEE(2)
PARTIALSUM_SEE(4)
PARTIALSUM_SEE(8)
PARTIALSUM_SEE(16)
#undef PARTIALSUM_SEE

}  // extern "C"
