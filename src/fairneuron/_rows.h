/* The rows of a layer, for vectors of LANES doubles, in the namespace ISA; included once per instruction set. */
namespace ISA {

typedef double Doubles __attribute__((vector_size(8 * LANES), aligned(8), may_alias));
typedef int64_t Words __attribute__((vector_size(8 * LANES), aligned(8), may_alias));
typedef float Floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE Doubles at(const double *p) { return *(const Doubles *)p; }
INLINE Doubles at(const float *p) { return __builtin_convertvector(*(const Floats *)p, Doubles); }
INLINE Doubles &at(double *p) { return *(Doubles *)p; }
INLINE Words at(const uint64_t *p) { return *(const Words *)p; }
INLINE Words &at(int64_t *p) { return *(Words *)p; }
INLINE Doubles all(double x) { return x - Doubles{}; }
INLINE Doubles max(Doubles a, Doubles b) { return a > b ? a : b; }
INLINE Doubles min(Doubles a, Doubles b) { return a < b ? a : b; }

/* A vector combined with itself, lanes j and j ^ 4, then j ^ 2, then j ^ 1: the result is in every lane. */
#if LANES == 8
#define SWAPPED(v, by) \
    __builtin_shufflevector(v, v, 0 ^ by, 1 ^ by, 2 ^ by, 3 ^ by, 4 ^ by, 5 ^ by, 6 ^ by, 7 ^ by)
#define REDUCED(f, v) v = f(v, SWAPPED(v, 4)), v = f(v, SWAPPED(v, 2)), v = f(v, SWAPPED(v, 1))
#elif LANES == 4
#define SWAPPED(v, by) __builtin_shufflevector(v, v, 0 ^ by, 1 ^ by, 2 ^ by, 3 ^ by)
#define REDUCED(f, v) v = f(v, SWAPPED(v, 2)), v = f(v, SWAPPED(v, 1))
#else
#define SWAPPED(v, by) __builtin_shufflevector(v, v, 0 ^ by, 1 ^ by)
#define REDUCED(f, v) v = f(v, SWAPPED(v, 1))
#endif
template <class Vector> INLINE Vector plus(Vector a, Vector b) { return a + b; }
INLINE double sum(Doubles v) { return REDUCED(plus, v), v[0]; }
INLINE uint64_t sum(Words v) { return REDUCED(plus, v), (uint64_t)v[0]; }
INLINE double largest(Doubles v) { return REDUCED(max, v), v[0]; }
#undef SWAPPED
#undef REDUCED

/* A number M so that (c + M) - M rounds c to a grid on which sums of `count` numbers up to `bound` are exact. */
INLINE double grid(double bound, Py_ssize_t count) {
    double total = bound * (double)(count < 4 ? 4 : count);
    uint64_t bits;
    memcpy(&bits, &total, 8);
    bits &= 0x7ff0000000000000u; /* the power of two at or below it */
    memcpy(&total, &bits, 8);
    return 1.5 * total;
}

/* The active neurons of a sample, one after the other. */
INLINE Py_ssize_t next_active(const uint8_t *active, Py_ssize_t q, Py_ssize_t units) {
    for (uint64_t eight; q + 8 <= units; q += 8) {
        memcpy(&eight, active + q, 8);
        if (eight) break;
    }
    while (q < units && !active[q]) q++;
    return q;
}

/* What a sample keeps of a layer. */
struct Kept {
    int64_t *marked;    /* (padded): not 0 where a kept synapse comes from */
    Words signature[2]; /* its lanes add up to the sum of the keys */
};

/* The largest contribution below a bound, or 0. */
INLINE double largest_below(const double *c, Py_ssize_t padded, double bound) {
    Doubles high = {};
    for (Py_ssize_t i = 0; i < padded; i += LANES) {
        Doubles v = at(c + i);
        high = max(v < all(bound) ? v : Doubles{}, high);
    }
    return largest(high);
}

/* Keeps all contributions at or above a bound, or (times = -1) takes that back; returns their sum. */
INLINE double keep_from(const Layer &layer, const double *c, double bound, Py_ssize_t q, int times, Kept &kept) {
    const uint64_t *keys = layer.synapse_keys, *unit = layer.unit_keys + 2 * q;
    Words first = {}, second = {};
    Doubles total = {};
    for (Py_ssize_t i = 0; i < layer.padded; i += LANES) {
        Doubles v = at(c + i);
        Words mask = v >= all(bound);
        total = mask ? total + v : total;
        at(kept.marked + i) += mask * times;
        first += at(keys + i) & mask;
        second += at(keys + layer.padded + i) & mask;
    }
    kept.signature[0] += first * ((int64_t)unit[0] * times);
    kept.signature[1] += second * ((int64_t)unit[1] * times);
    return sum(total);
}

INLINE void keep_one(const Layer &layer, Py_ssize_t i, Py_ssize_t q, Kept &kept) {
    kept.marked[i] -= 1;
    for (int word = 0; word < 2; word++)
        kept.signature[word][0] += (int64_t)(layer.unit_keys[2 * q + word] * layer.synapse_keys[word * layer.padded + i]);
}

/* One synapse after the other, as the paper has it; for neurons with equal contributions. */
void keep_one_by_one(const Layer &layer, const double *c, double threshold, Py_ssize_t q, Kept &kept) {
    double total = 0;
    for (double value = INFINITY; total <= threshold;) {
        value = largest_below(c, layer.padded, value);
        if (value <= 0) break;
        for (Py_ssize_t i = 0; i < layer.inputs && total <= threshold; i++)
            if (c[i] == value) keep_one(layer, i, q, kept), total += value;
    }
}

/* Sums of the contributions at or above each pivot. */
INLINE void sums_from(const double *c, Py_ssize_t padded, const double *pivot, double *sums) {
    Doubles total[PIVOTS] = {};
    for (Py_ssize_t i = 0; i < padded; i += LANES) {
        Doubles v = at(c + i);
        for (int p = 0; p < PIVOTS; p++) total[p] = v >= all(pivot[p]) ? total[p] + v : total[p];
    }
    for (int p = 0; p < PIVOTS; p++) sums[p] = sum(total[p]);
}

/* Keeps the shortest prefix of the sorted contributions of neuron q whose sum exceeds the threshold.
 *
 * The prefix ends at some value, and holds everything from there on. That value is found without sorting: down from the
 * largest, one at a time where few are missing, else by trying pivots.
 */
INLINE void keep_prefix(const Layer &layer, const double *c, double top, double second, double threshold, Py_ssize_t q,
                        Kept &kept) {
    double next = top, last = INFINITY, total = 0, lower = 0; /* the sum from `last` on; that from `lower` on is too large */
    for (;;) {
        const double missing = threshold - total;
        if (next > missing) {
            last = next, total += next;
            break;
        }
        if (missing <= NEAR * next) {
            last = next, total += next;
        } else {
            double pivot[PIVOTS], sums[PIVOTS];
            for (int p = 0; p < PIVOTS; p++)
                pivot[p] = lower > 0 ? lower + (next - lower) * (PIVOTS - p) / PIVOTS : next / (1 << p);
            pivot[0] = next;
            if (layer.gamma >= 1 && lower <= 0) pivot[PIVOTS - 1] = SMALLEST; /* all that are positive may be needed */
            sums_from(c, layer.padded, pivot, sums);
            if (sums[0] > threshold) { /* it ends among equals: told below */
                last = next, total += next;
                break;
            }
            for (int p = 0; p < PIVOTS; p++) {
                if (sums[p] <= threshold && pivot[p] < last) last = pivot[p], total = sums[p];
                if (sums[p] > threshold && pivot[p] > lower) lower = pivot[p];
            }
        }
        next = last == top ? second : largest_below(c, layer.padded, last);
        if (next <= 0) break;
    }
    if (keep_from(layer, c, last, q, 1, kept) != total) { /* some are equal */
        keep_from(layer, c, last, q, -1, kept);
        keep_one_by_one(layer, c, threshold, q, kept);
    }
}

/* Keeps the synapses of neuron q; false if a contribution is not finite. */
template <class Weight>
INLINE bool keep(const Layer &layer, Py_ssize_t q, const double *r, double *c, double *oriented, Kept &kept) {
    const Py_ssize_t padded = layer.padded;
    const Weight *w = static_cast<const Weight *>(layer.weight) + q * padded;
    Doubles high = all(-INFINITY), low = all(INFINITY), rough = {};
    for (Py_ssize_t i = 0; i < padded; i += LANES) {
        Doubles product = at(w + i) * at(r + i);
        at(c + i) = product;
        high = max(product, high), low = min(product, low);
        rough += product;
    }
    const double most = largest(high), least = largest(-low), bound = most > least ? most : least;
    const double M = grid(bound, layer.inputs);
    double sign = sum(rough) < 0 ? -1 : 1; /* of the value, but for roundings */
    double top, second, value;
    for (;; sign = -sign) {
        top = ((layer.absolute ? bound : sign < 0 ? least : most) + M) - M;
        Doubles total = {}, below = {};
        for (Py_ssize_t i = 0; i < padded; i += LANES) {
            Doubles rounded = ((at(c + i) + all(M)) - all(M)) * all(sign);
            total += rounded;
            if (layer.absolute) rounded = max(rounded, -rounded);
            at(oriented + i) = rounded;
            below = max(rounded < all(top) ? rounded : Doubles{}, below);
        }
        value = sum(total), second = largest(below);
        if (!(value < 0 || (value == 0 && sign < 0))) break; /* 0 counts as positive */
    }
    if (!isfinite(value)) return false;
    if (top <= 0) /* all are 0 */
        keep_one(layer, 0, q, kept);
    else
        keep_prefix(layer, oriented, top, second, layer.gamma * value, q, kept);
    return true;
}

/* Samples [first, last) of a layer; false if a contribution is not finite. */
template <class Weight>
INLINE bool fold_samples(const Layer &layer, Py_ssize_t first, Py_ssize_t last, double *scratch) {
    const Py_ssize_t padded = layer.padded;
    double *r = scratch, *c = r + padded, *oriented = c + padded;
    memset(r, 0, padded * sizeof *r);
    for (Py_ssize_t s = first; s < last; s++) {
        const uint8_t *active = layer.active + s * layer.units;
        const double *value = layer.value + s * layer.inputs;
        Kept kept = {reinterpret_cast<int64_t *>(oriented + padded), {{}, {}}};
        for (Py_ssize_t i = 0; i < layer.inputs; i++) r[i] = (float)(value[i] - layer.mean[i]);
        memset(kept.marked, 0, padded * sizeof *kept.marked);
        for (Py_ssize_t q = next_active(active, 0, layer.units); q < layer.units;
             q = next_active(active, q + 1, layer.units))
            if (!keep<Weight>(layer, q, r, c, oriented, kept)) return false;
        for (int word = 0; word < 2; word++) layer.signature[2 * s + word] += sum(kept.signature[word]);
        uint8_t *source = layer.source + s * layer.inputs;
        for (Py_ssize_t i = 0; i < layer.inputs; i++) source[i] |= kept.marked[i] != 0;
    }
    return true;
}

bool fold_float(const Layer &layer, Py_ssize_t first, Py_ssize_t last, double *scratch) {
    return fold_samples<float>(layer, first, last, scratch);
}
bool fold_double(const Layer &layer, Py_ssize_t first, Py_ssize_t last, double *scratch) {
    return fold_samples<double>(layer, first, last, scratch);
}

}  // namespace ISA
