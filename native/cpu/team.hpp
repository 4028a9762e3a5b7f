// Threads for one call.
#pragma once

#include <atomic>
#include <functional>

namespace partialsum {

// Runs `work(member)` on up to `threads` threads, the calling one among them; `member` counts them from 0, in no
// particular order. `work` must share its load out by itself (there may be fewer threads than asked for) and must not throw.
//
// Where the process has an OpenMP run time in its global scope, as it has once torch is loaded, the threads are its team:
// torch's workers go on spinning for some milliseconds after an operation, and threads of our own would have to share
// their cores with them. Elsewhere, and in a process that was forked (libgomp's team does not survive that), they are
// started for the call. Every one of them has the default floating-point environment.
void on_threads(int threads, const std::function<void(int member)>& work);

// Whether the threads are an OpenMP team's, here and now.
bool joins_openmp();

}  // namespace partialsum
