// The driver: cuts a batch of GEMMs into blocks of the output and runs them on threads.
#pragma once

#include <cstdint>
#include <functional>

#include "engine.hpp"

namespace partialsum {

// The memory of an operand that holds all its elements and nothing else; count is 0 where there is no such piece.
struct Span {
    const float* data;
    int64_t count;
};

// d[batch] = c[batch] + a[batch] @ b[batch]; offsets are in elements from the data pointers.
struct Problem {
    const Rule* rule;
    const UnitRule* unit;        // these two as in Block
    const IntegerRule* integer;
    Source a, b;
    Destination d;
    Start c;
    int64_t m, n, k, batch;
    const int64_t* a_offsets;
    const int64_t* b_offsets;
    const int64_t* c_offsets;
    const int64_t* d_offsets;
    uint32_t forbidden;  // kernels to leave out, a bit each
    Span a_memory, b_memory;  // where packing reads an element often (patches): their census is taken here, once
};

// The sum of products does not care which operand is called a: the side that wastes less as vectors is made b, and a
// convolution's windows where that makes no difference.
Problem oriented(const Problem& problem, bool& swapped);

struct Outcome {
    bool finished;
    uint32_t used;  // kernels that ran, a bit each
};

// `interrupted` is asked on the calling thread several times a second; once it says yes the work stops and the
// result is left unfinished. Bits do not depend on `threads`: a thread owns whole output elements.
Outcome gemm(const Problem& problem, const Engine& engine, int threads, const std::function<bool()>& interrupted);

}  // namespace partialsum
