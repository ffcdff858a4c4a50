// Batch normalisation, LeakyReLU and circular padding in one pass each way, channels last, for CPUs.
// Every sum is taken over an image first and then over the images in order, so no result depends on the threads.
// Without `omp simd`, GCC asks at run time whether arrays overlap, and in float32 there are too many of them to ask.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using bfloat16 = uint16_t;
constexpr int64_t TILE = 128;  // the least numbers that a vectorised loop runs over

inline float load(float x) { return x; }
inline float load(bfloat16 x) {
    uint32_t bits = uint32_t(x) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
inline void store(float& to, float x) { to = x; }
inline void store(bfloat16& to, float x) {  // to the nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    to = bfloat16((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Channels repeat along a row of pixels: tile is the smallest whole number of pixels with enough channels in them.
struct Shape {
    int64_t images, height, width, channels, pad, tile, row, padded;
    Shape(int64_t b, int64_t h, int64_t w, int64_t c, int64_t p)
        : images(b), height(h), width(w), channels(c), pad(p), tile(c), row(w * c), padded((w + 2 * p) * c) {
        while (tile < TILE && row % (2 * tile) == 0) tile *= 2;
    }
    std::vector<float> spread(const float* values) const {
        std::vector<float> out(tile);
        for (int64_t i = 0; i < tile; i++) out[i] = values[i % channels];
        return out;
    }
    // sums (images, 2, tile) -> total (2, channels)
    std::vector<double> fold(const std::vector<float>& sums) const {
        std::vector<double> total(2 * channels);
        for (int64_t image = 0; image < images; image++)
            for (int64_t part = 0; part < 2; part++)
                for (int64_t i = 0; i < tile; i++)
                    total[part * channels + i % channels] += sums[(2 * image + part) * tile + i];
        return total;
    }
};

template <typename T>
void add_row(T* __restrict to, const T* __restrict other, int64_t n) {
    for (int64_t i = 0; i < n; i++) store(to[i], load(to[i]) + load(other[i]));
}

// x (B, h, w, c) -> out (B, h + 2 pad, w + 2 pad, c), and of this batch statistics (3, c): mean, 1 / sqrt(var + eps),
// unbiased variance.
template <typename T>
void forward(const Shape& s, const T* x, const float* weight, const float* bias, float* statistics, T* out, float slope,
             double eps) {
    const int64_t c = s.channels, tile = s.tile, area = s.height * s.width;
    std::vector<float> first(c), sums(2 * s.images * tile);  // sums are of differences from the first pixel
    for (int64_t i = 0; i < c; i++) first[i] = load(x[i]);
    const auto pivot = s.spread(first.data());
#pragma omp parallel for schedule(static)
    for (int64_t image = 0; image < s.images; image++) {
        const T* at = x + image * s.height * s.row;
        float *__restrict sum = &sums[2 * image * tile], *__restrict squares = sum + tile;
        const float* __restrict zero = pivot.data();
        for (int64_t start = 0; start < area * c; start += tile)
#pragma omp simd
            for (int64_t i = 0; i < tile; i++) {
                const float d = load(at[start + i]) - zero[i];
                sum[i] += d;
                squares[i] += d * d;
            }
    }
    const auto total = s.fold(sums);
    const double count = double(s.images) * area;
    for (int64_t i = 0; i < c; i++) {
        const double mean = total[i] / count, variance = std::fmax(total[c + i] / count - mean * mean, 0.0);
        statistics[i] = float(first[i] + mean);
        statistics[c + i] = float(1 / std::sqrt(variance + eps));
        statistics[2 * c + i] = float(variance * count / (count - 1));
    }
    std::vector<float> a(c), b(c);
    for (int64_t i = 0; i < c; i++) {
        a[i] = statistics[c + i] * weight[i];
        b[i] = bias[i] - statistics[i] * a[i];
    }
    const auto scales = s.spread(a.data()), shifts = s.spread(b.data());
    const int64_t tall = s.height + 2 * s.pad, halo = s.pad * c;
#pragma omp parallel for schedule(static)
    for (int64_t image = 0; image < s.images; image++) {
        T* to = out + image * tall * s.padded;
        for (int64_t y = 0; y < s.height; y++) {
            const T* at = x + (image * s.height + y) * s.row;
            T* line = to + (y + s.pad) * s.padded + halo;
            const float *__restrict scale = scales.data(), *__restrict shift = shifts.data();
            for (int64_t start = 0; start < s.row; start += tile)
#pragma omp simd
                for (int64_t i = 0; i < tile; i++) {
                    const float z = load(at[start + i]) * scale[i] + shift[i];
                    store(line[start + i], z > 0 ? z : slope * z);
                }
            std::memcpy(line - halo, line + s.row - halo, halo * sizeof(T));
            std::memcpy(line + s.row, line, halo * sizeof(T));
        }
        std::memcpy(to, to + s.height * s.padded, s.pad * s.padded * sizeof(T));
        std::memcpy(to + (s.height + s.pad) * s.padded, to + s.pad * s.padded, s.pad * s.padded * sizeof(T));
    }
}

// grad of out -> dx, gradients (2, c): of weight and bias. The halo of grad is folded into grad itself.
template <typename T>
void backward(const Shape& s, T* grad, const T* x, const float* weight, const float* bias, const float* statistics,
              T* dx, float* gradients, float slope) {
    const int64_t c = s.channels, tile = s.tile, tall = s.height + 2 * s.pad, halo = s.pad * c;
    std::vector<float> a(c), b(c), sums(2 * s.images * tile);
    for (int64_t i = 0; i < c; i++) {
        a[i] = statistics[c + i] * weight[i];
        b[i] = bias[i] - statistics[i] * a[i];
    }
    const auto scales = s.spread(a.data()), shifts = s.spread(b.data());
    const auto means = s.spread(statistics), inverses = s.spread(statistics + c);
#pragma omp parallel for schedule(static)
    for (int64_t image = 0; image < s.images; image++) {
        T* from = grad + image * tall * s.padded;
        for (int64_t y = 0; y < s.pad; y++) {
            add_row(from + (s.height + y) * s.padded, from + y * s.padded, s.padded);
            add_row(from + (s.pad + y) * s.padded, from + (s.height + s.pad + y) * s.padded, s.padded);
        }
        float *__restrict sum = &sums[2 * image * tile], *__restrict products = sum + tile;
        const float *__restrict scale = scales.data(), *__restrict shift = shifts.data(), *__restrict mean = means.data();
        for (int64_t y = 0; y < s.height; y++) {
            T* line = from + (y + s.pad) * s.padded + halo;
            add_row(line + s.row - halo, line - halo, halo);
            add_row(line, line + s.row, halo);
            const T* at = x + (image * s.height + y) * s.row;
            for (int64_t start = 0; start < s.row; start += tile)
#pragma omp simd
                for (int64_t i = 0; i < tile; i++) {
                    const float v = load(at[start + i]), g = load(line[start + i]);
                    const float d = v * scale[i] + shift[i] > 0 ? g : slope * g;
                    sum[i] += d;
                    products[i] += d * (v - mean[i]);
                }
        }
    }
    const auto total = s.fold(sums);
    const double count = double(s.images) * s.height * s.width;
    std::vector<float> p(c), q(c);  // dx = scale * d - p * x - q
    for (int64_t i = 0; i < c; i++) {
        gradients[c + i] = float(total[i]);
        gradients[i] = float(total[c + i] * statistics[c + i]);
        p[i] = float(a[i] * statistics[c + i] * statistics[c + i] * total[c + i] / count);
        q[i] = float(a[i] * total[i] / count - double(p[i]) * statistics[i]);
    }
    const auto ps = s.spread(p.data()), qs = s.spread(q.data());
#pragma omp parallel for schedule(static)
    for (int64_t image = 0; image < s.images; image++) {
        const float *__restrict scale = scales.data(), *__restrict shift = shifts.data();
        const float *__restrict pp = ps.data(), *__restrict qq = qs.data();
        for (int64_t y = 0; y < s.height; y++) {
            const T* line = grad + (image * tall + y + s.pad) * s.padded + halo;
            const T* at = x + (image * s.height + y) * s.row;
            T* __restrict to = dx + (image * s.height + y) * s.row;
            for (int64_t start = 0; start < s.row; start += tile)
#pragma omp simd
                for (int64_t i = 0; i < tile; i++) {
                    const float v = load(at[start + i]), g = load(line[start + i]);
                    const float d = v * scale[i] + shift[i] > 0 ? g : slope * g;
                    store(to[start + i], scale[i] * d - pp[i] * v - qq[i]);
                }
        }
    }
}

}  // namespace

extern "C" {
#define ENTRY(name, T)                                                                                                \
    void forward_##name(int64_t b, int64_t h, int64_t w, int64_t c, int64_t pad, const T* x, const float* weight,     \
                        const float* bias, float* statistics, T* out, float slope, double eps) {                      \
        forward<T>(Shape(b, h, w, c, pad), x, weight, bias, statistics, out, slope, eps);                             \
    }                                                                                                                 \
    void backward_##name(int64_t b, int64_t h, int64_t w, int64_t c, int64_t pad, T* grad, const T* x,                \
                         const float* weight, const float* bias, const float* statistics, T* dx, float* gradients,    \
                         float slope) {                                                                               \
        backward<T>(Shape(b, h, w, c, pad), grad, x, weight, bias, statistics, dx, gradients, slope);                 \
    }
ENTRY(float32, float)
ENTRY(bfloat16, bfloat16)
}
