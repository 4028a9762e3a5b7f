#include "quantize.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "dispatch.hpp"
#include "float_environment.hpp"
#include "partialsum/block_scales.hpp"
#include "team.hpp"

namespace partialsum {

namespace {

constexpr int64_t worth_a_thread = 1 << 17;  // elements; below, starting a thread costs more than it saves
constexpr int float_bits = 23;

int32_t pattern(double magnitude) { return same_bits<int32_t>(static_cast<float>(magnitude)) & 0x7FFFFFFF; }

// Calls work(first, last) for parts of 0 … count; every part but the last is a multiple of 16.
template <class Work>
void in_parallel(int64_t count, int threads, int64_t elements_each, const Work& work) {
    const int64_t useful = std::clamp<int64_t>(count * elements_each / worth_a_thread, 1, threads);
    const int64_t part = ((count + useful - 1) / useful + 15) / 16 * 16;
    std::atomic<int64_t> next{0};
    on_threads(useful > 1 ? threads : 1, [&](int) {
        for (int64_t first; (first = part * next.fetch_add(1)) < count;) work(first, std::min(first + part, count));
    });
}

BitRule make_bit_rule(Rounding rounding, const Grid& grid, bool fixed_point) {
    const int random_bits = grid.random_bits;
    const int lowest_bit = std::ilogb(grid.smallest_quantum);
    const bool stochastic = rounding == Rounding::stochastic;
    const bool same_lowest = !fixed_point && grid.min_exponent == -126;
    BitRule rule{};
    rule.usable = (fixed_point || grid.min_exponent >= -126) && (same_lowest || float_bits + lowest_bit <= 127) &&
                  (!stochastic || same_lowest || (random_bits <= 24 && lowest_bit - random_bits >= -126));
    if (!rule.usable) return rule;
    rule.plain = !fixed_point && grid.flush_below == 0.0 && grid.keeps_negative_zero;
    rule.overflows_to_nan = std::isnan(grid.over_positive) || std::isnan(grid.over_negative);
    const int discarded = fixed_point ? 0 : float_bits - grid.man_bits;
    rule.discarded = discarded;
    rule.keep = ~((1 << discarded) - 1);
    rule.half_below = discarded > 0 ? (1 << (discarded - 1)) - 1 : 0;
    rule.odd_mask = discarded > 0 ? 1 : 0;
    rule.odd_flip = grid.man_bits == 0 ? (grid.bias ^ 127) & 1 : 0;
    rule.lowest_normal = fixed_point ? pattern(HUGE_VAL) : same_lowest ? 0 : pattern(std::ldexp(1.0, grid.min_exponent));
    rule.shift = same_lowest ? 0.0f : std::ldexp(1.0f, float_bits + lowest_bit);
    rule.quantum = std::ldexp(1.0f, lowest_bit);
    rule.largest_positive = pattern(grid.largest);
    rule.largest_negative = fixed_point ? pattern(grid.over_negative) : rule.largest_positive;
    rule.over_positive = pattern(grid.over_positive);
    rule.over_negative = pattern(grid.over_negative);
    rule.infinite = pattern(grid.infinite);
    rule.flush_below = pattern(grid.flush_below);
    rule.zero_sign = grid.keeps_negative_zero ? ~0x7FFFFFFF : 0;
    if (stochastic) {
        const int counting = std::min(random_bits, discarded);
        rule.random_down = counting > 0 ? 32 - counting : 0;
        rule.random_up = discarded - counting;
        rule.random_shift = 32 - random_bits;
        rule.random_range = random_bits <= 24 ? 1 << random_bits : 0;
        rule.random_quantum = std::ldexp(rule.quantum, -random_bits);
    }
    return rule;
}

template <class Element>
void cut(void (*round)(const QuantizeRule&, const Element*, float*, int64_t, uint64_t), const QuantizeRule& rule,
         int threads, const Element* input, float* output, int64_t count) {
    in_parallel(count, threads, 1, [&](int64_t first, int64_t last) {
        round(rule, input + first, output + first, last - first, static_cast<uint64_t>(first));
    });
}

}  // namespace

QuantizeRule make_quantize_rule(
    Rounding rounding, const Grid& grid, bool fixed_point, bool non_negative, uint64_t seed
) {
    QuantizeRule rule{rounding, grid, {}, non_negative, stream_key(seed, Stream::element, 0)};
    if (fixed_point) rule.grid.relative_quantum = 0.0;  // one quantum for all magnitudes
    rule.bits = make_bit_rule(rounding, grid, fixed_point);
    return rule;
}

const QuantizeEngine* find_quantizer(const char* name) {
    const QuantizeEngine* found = nullptr;
    for (const Engine* engine : available_engines()) {
        if (std::strcmp(engine->name, name) != 0) continue;
        found = &portable_quantizer();
#if defined(__x86_64__)
        if (std::strcmp(name, "avx2") == 0) found = &avx2_quantizer();
        if (std::strcmp(name, "avx512") == 0) found = &avx512_quantizer();
#endif
    }
    return found;
}

void quantize(
    const QuantizeRule& rule, const QuantizeEngine& engine, int threads, const float* input, float* output, int64_t count
) {
    cut(engine.floats, rule, threads, input, output, count);
}

void quantize(
    const QuantizeRule& rule, const QuantizeEngine& engine, int threads, const double* input, float* output, int64_t count
) {
    cut(engine.doubles, rule, threads, input, output, count);
}

float quantize_blocks(const BlockRule& rule, const QuantizeEngine& engine, int threads, BlockArrays& arrays) {
    const DefaultFloatEnvironment exact;
    const int64_t count = arrays.outer * arrays.length * arrays.inner;
    arrays.tensor_scale = scale_of_tensor(rule, rule.tensor_scaled ? engine.largest(arrays.input, count) : 0.0f);
    const int64_t each = rule.block * arrays.inner;
    in_parallel(arrays.outer * arrays.blocks, threads, each, [&](int64_t first, int64_t last) {
        engine.blocks(rule, arrays, first, last);
    });
    return arrays.tensor_scale;
}

}  // namespace partialsum
