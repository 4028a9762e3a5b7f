// Which kernel sums the moments of rounding errors on this processor.
#include "error_moments.hpp"

#include <cstring>

#include "dispatch.hpp"

namespace partialsum {

ErrorMomentsKernel* find_error_moments(const char* level) {
    ErrorMomentsKernel* found = nullptr;
    for (const Engine* engine : available_engines()) {
        if (std::strcmp(engine->name, level) != 0) continue;
        found = portable_error_moments;
#if defined(__x86_64__)
        if (std::strcmp(level, "avx2") == 0) found = avx2_error_moments;
        if (std::strcmp(level, "avx512") == 0) found = avx512_error_moments;
#endif
    }
    return found;
}

}  // namespace partialsum
