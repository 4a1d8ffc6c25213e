/* The rows of a layer, for vectors of LANES doubles, in the namespace ISA; included once per instruction set. */
namespace ISA {

typedef double Doubles __attribute__((vector_size(8 * LANES), aligned(8), may_alias));
typedef int64_t Words __attribute__((vector_size(8 * LANES), aligned(8), may_alias));
typedef uint64_t Keys __attribute__((vector_size(8 * LANES), aligned(8), may_alias)); /* their sums wrap around */
typedef float Floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE Doubles at(const double *p) { return *(const Doubles *)p; }
INLINE Doubles at(const float *p) { return __builtin_convertvector(*(const Floats *)p, Doubles); }
INLINE Doubles &at(double *p) { return *(Doubles *)p; }
INLINE Keys at(const uint64_t *p) { return *(const Keys *)p; }
INLINE Words &at(int64_t *p) { return *(Words *)p; }
INLINE Doubles all(double x) { return x - Doubles{}; }
INLINE Doubles max(Doubles a, Doubles b) { return a > b ? a : b; }
INLINE Doubles min(Doubles a, Doubles b) { return a < b ? a : b; }

#if LANES == 8
#define EACH_LANE(f, by) f(0, by), f(1, by), f(2, by), f(3, by), f(4, by), f(5, by), f(6, by), f(7, by)
#define EACH_STEP(f) f(4) f(2) f(1)
#elif LANES == 4
#define EACH_LANE(f, by) f(0, by), f(1, by), f(2, by), f(3, by)
#define EACH_STEP(f) f(2) f(1)
#else
#define EACH_LANE(f, by) f(0, by), f(1, by)
#define EACH_STEP(f) f(1)
#endif
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Words{__VA_ARGS__})
#endif
#define OTHER(j, by) ((j) ^ (by))
#define UPPER(j, by) ((j) & (by) ? LANES + ((j) ^ (by)) : (j))
#define LOWER(j, by) ((j) & (by) ? LANES + (j) : (j) | (by))

/* A vector combined with itself, lanes j and j ^ 4, then j ^ 2, then j ^ 1: the result is in every lane. */
#define ADD(by) v += SHUFFLE(v, v, EACH_LANE(OTHER, by));
#define MAX(by) v = max(v, SHUFFLE(v, v, EACH_LANE(OTHER, by)));
INLINE double sum(Doubles v) { EACH_STEP(ADD) return v[0]; }
INLINE uint64_t sum(Keys v) { EACH_STEP(ADD) return v[0]; }
INLINE double largest(Doubles v) { EACH_STEP(MAX) return v[0]; }
INLINE bool any(Words mask) { return sum((Keys)-mask) != 0; }

/* A square turned over its diagonal: for each bit of the position, the off-diagonal quarters change places. */
#define TURN(by)                                                                  \
    _Pragma("GCC unroll 8") for (int i = 0; i < LANES; i++) if (!(i & by)) {      \
        Vector a = row[i], b = row[i | by];                                       \
        row[i] = SHUFFLE(a, b, EACH_LANE(UPPER, by));                             \
        row[i | by] = SHUFFLE(a, b, EACH_LANE(LOWER, by));                        \
    }
INLINE void transpose(Doubles *row) { typedef Doubles Vector; EACH_STEP(TURN) }
INLINE void transpose(Words *row) { typedef Words Vector; EACH_STEP(TURN) }
#undef EACH_LANE
#undef EACH_STEP
#undef SHUFFLE
#undef OTHER
#undef UPPER
#undef LOWER
#undef ADD
#undef MAX
#undef TURN

/* A number M so that (c + M) - M rounds c to a grid on which sums of `count` numbers up to `bound` are exact. (One more than
 * `count`, since rounding may carry each of them above `bound`.) */
INLINE Doubles grid(Doubles bound, Py_ssize_t count) {
    Words power = (Words)(bound * all((double)(count < 3 ? 4 : count + 1)));
    power &= 0x7ff0000000000000; /* the power of two at or below it */
    return all(1.5) * (Doubles)power;
}

/* The positions of the active neurons of a sample; returns how many. */
INLINE Py_ssize_t active_neurons(const uint8_t *active, Py_ssize_t units, int32_t *found) {
    Py_ssize_t n = 0, q = 0;
    for (uint64_t eight; q + 8 <= units; q += 8) {
        memcpy(&eight, active + q, 8);
        if (!eight) continue;
        for (int j = 0; j < 8; j++) found[n] = (int32_t)(q + j), n += active[q + j] != 0;
    }
    for (; q < units; q++) found[n] = (int32_t)q, n += active[q] != 0;
    return n;
}

/* What a sample keeps of a layer. */
struct Kept {
    int64_t *marked;    /* (padded): not 0 where a kept synapse comes from */
    Keys signature[2];  /* its lanes add up to the sum of the keys */
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
    Keys first = {}, second = {};
    Doubles total = {};
    for (Py_ssize_t i = 0; i < layer.padded; i += LANES) {
        Doubles v = at(c + i);
        Words mask = v >= all(bound);
        total = mask ? total + v : total;
        at(kept.marked + i) += mask * times;
        first += at(keys + i) & (Keys)mask;
        second += at(keys + layer.padded + i) & (Keys)mask;
    }
    kept.signature[0] += first * (unit[0] * (uint64_t)times);
    kept.signature[1] += second * (unit[1] * (uint64_t)times);
    return sum(total);
}

INLINE void keep_one(const Layer &layer, Py_ssize_t i, Py_ssize_t q, Kept &kept) {
    kept.marked[i] -= 1;
    for (int word = 0; word < 2; word++)
        kept.signature[word][0] += layer.unit_keys[2 * q + word] * layer.synapse_keys[word * layer.padded + i];
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

/* Where a prefix ends, while it is searched. */
struct End {
    double last;  /* the prefix holds all from here on */
    double total; /* the sum of these */
    double lower; /* the sum of those from here on is too large */
};

/* Brings both sides of the end nearer by trying pivots, the largest being `next`, the largest below `last`; false if all
 * contributions equal to `next` are too much. */
INLINE bool narrow(const Layer &layer, const double *c, double next, double threshold, End &end) {
    double pivot[PIVOTS], sums[PIVOTS];
    for (int p = 0; p < PIVOTS; p++)
        pivot[p] = end.lower > 0 ? end.lower + (next - end.lower) * (PIVOTS - p) / PIVOTS : next / (1 << p);
    pivot[0] = next;
    if (layer.gamma >= 1 && end.lower <= 0) pivot[PIVOTS - 1] = 0; /* all may be needed, */
    for (int p = 0; p < PIVOTS; p++)
        if (pivot[p] <= 0) pivot[p] = layer.smallest; /* but none that is 0 */
    sums_from(c, layer.padded, pivot, sums);
    if (sums[0] > threshold) return false;
    for (int p = 0; p < PIVOTS; p++) {
        if (sums[p] <= threshold && pivot[p] < end.last) end.last = pivot[p], end.total = sums[p];
        if (sums[p] > threshold && pivot[p] > end.lower) end.lower = pivot[p];
    }
    return true;
}

/* The same as keep_prefix, for neurons with equal contributions: those at the end are kept one after the other. */
void keep_with_ties(const Layer &layer, const double *c, double threshold, Py_ssize_t q, Kept &kept) {
    End end = {INFINITY, 0, 0};
    double next;
    do next = largest_below(c, layer.padded, end.last);
    while (next > 0 && next <= threshold - end.total && narrow(layer, c, next, threshold, end));
    keep_from(layer, c, end.last, q, 1, kept);
    if (next <= 0) return;
    for (Py_ssize_t i = 0; i < layer.inputs && end.total <= threshold; i++)
        if (c[i] == next) keep_one(layer, i, q, kept), end.total += next;
}

/* Keeps the shortest prefix of the sorted contributions of neuron q whose sum exceeds the threshold.
 *
 * The prefix ends at some value, and holds everything from there on. That value is found without sorting: down from the
 * largest, one at a time where few are missing, else by trying pivots.
 */
INLINE void keep_prefix(const Layer &layer, const double *c, double top, double second, double threshold, Py_ssize_t q,
                        Kept &kept) {
    End end = {INFINITY, 0, 0};
    for (double next = top; next > 0; next = end.last == top ? second : largest_below(c, layer.padded, end.last)) {
        const double missing = threshold - end.total;
        const bool few = missing <= NEAR * next;
        const bool more = next <= missing && (few || narrow(layer, c, next, threshold, end));
        if (few || !more) end.last = next, end.total += next; /* as if no other were equal */
        if (!more) break;
    }
    if (keep_from(layer, c, end.last, q, 1, kept) != end.total) { /* some are equal */
        keep_from(layer, c, end.last, q, -1, kept);
        keep_with_ties(layer, c, threshold, q, kept);
    }
}

/* Contributions of some synapses: the sum over taps, always in this order, of weight times relative activation. */
template <class Weight>
INLINE Doubles contribution(const Layer &layer, const Weight *w, const double *r) {
    Doubles sum = at(w) * at(r);
    for (Py_ssize_t tap = 1; tap < layer.taps; tap++) sum += at(w + tap * layer.padded) * at(r + tap * layer.padded);
    return sum;
}

/* Keeps the synapses of neuron q; false if a contribution is not finite. */
template <class Weight>
INLINE bool keep(const Layer &layer, Py_ssize_t q, const double *r, double *c, double *oriented, Kept &kept) {
    const Py_ssize_t padded = layer.padded;
    const Weight *w = static_cast<const Weight *>(layer.weight) + q * layer.taps * padded;
    Doubles high = all(-INFINITY), low = all(INFINITY), rough = {};
    for (Py_ssize_t i = 0; i < padded; i += LANES) {
        Doubles product = contribution(layer, w + i, r + i);
        at(c + i) = product;
        high = max(product, high), low = min(product, low);
        rough += product;
    }
    const double most = largest(high), least = largest(-low), bound = most > least ? most : least;
    const double M = grid(all(bound), layer.inputs)[0];
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

/* Four accumulators in turn, since each waits for its last result. */
struct Chains {
    Doubles chain[4];
    INLINE_MEMBER Chains(double x) : chain{all(x), all(x), all(x), all(x)} {}
    INLINE_MEMBER Doubles &operator[](Py_ssize_t i) { return chain[i & 3]; }
    INLINE_MEMBER Doubles sum() const { return (chain[0] + chain[1]) + (chain[2] + chain[3]); }
    INLINE_MEMBER Doubles largest() const { return max(max(chain[0], chain[1]), max(chain[2], chain[3])); }
    INLINE_MEMBER Doubles smallest() const { return min(min(chain[0], chain[1]), min(chain[2], chain[3])); }
};
#define EACH_SYNAPSE(i)                                        \
    for (Py_ssize_t block = 0; block < padded; block += 4)     \
        _Pragma("GCC unroll 4") for (Py_ssize_t i = block; i < block + 4; i++)

/* The same for up to LANES neurons at once, one in each lane: c holds their contributions to one synapse after another.
 *
 * Pays where there are few synapses: nothing is combined across lanes.
 */
template <class Weight>
__attribute__((noinline)) bool keep_together(const Layer &layer, const int32_t *q, int neurons, const double *r, double *c, double *row,
                          Kept &kept) {
    const Py_ssize_t padded = layer.padded;
    const Weight *w[LANES];
    Keys keys[2];
    Words lane;
    for (int l = 0; l < LANES; l++) {
        const Py_ssize_t neuron = q[l < neurons ? l : neurons - 1];
        w[l] = static_cast<const Weight *>(layer.weight) + neuron * layer.taps * padded;
        for (int word = 0; word < 2; word++) keys[word][l] = layer.unit_keys[2 * neuron + word];
        lane[l] = l;
    }
    Chains high(-INFINITY), low(INFINITY), rough(0);
    for (Py_ssize_t i = 0; i < padded; i += LANES) {
        Doubles product[LANES];
#pragma GCC unroll 8
        for (int l = 0; l < LANES; l++) product[l] = contribution(layer, w[l] + i, r + i);
        transpose(product);
#pragma GCC unroll 8
        for (int j = 0; j < LANES; j++) {
            at(c + (i + j) * LANES) = product[j];
            high[j] = max(product[j], high[j]), low[j] = min(product[j], low[j]);
            rough[j] += product[j];
        }
    }
    const Doubles most = high.largest(), least = low.smallest(), bound = max(most, -least);
    const Doubles M = grid(bound, layer.inputs);
    const Doubles sign = rough.sum() < Doubles{} ? all(-1) : all(1);
    Doubles top = layer.absolute ? bound : sign < Doubles{} ? -least : most;
    top = (top + M) - M;
    Chains values(0), nexts(0);
    EACH_SYNAPSE(i) {
        Doubles rounded = ((at(c + i * LANES) + M) - M) * sign;
        values[i] += rounded;
        if (layer.absolute) rounded = max(rounded, -rounded);
        at(c + i * LANES) = rounded;
        nexts[i] = max(rounded < top ? rounded : Doubles{}, nexts[i]);
    }
    Doubles value = values.sum(), next = nexts.largest();
    if (any(~(value - value == Doubles{}))) return false;
    const Words wrong = (value < Doubles{}) | ((value == Doubles{}) & (sign < Doubles{}));
    if (any(wrong)) { /* the rough sum had another sign */
        value = wrong ? -value : value;
        if (!layer.absolute) {
            top = next = Doubles{};
            for (Py_ssize_t i = 0; i < padded; i++) {
                Doubles v = at(c + i * LANES);
                at(c + i * LANES) = v = wrong ? -v : v;
                top = max(v, top);
            }
            for (Py_ssize_t i = 0; i < padded; i++) {
                Doubles v = at(c + i * LANES);
                next = max(v < top ? v : Doubles{}, next);
            }
        }
    }
    const Doubles threshold = value * all(layer.gamma);
    const Words zero = top <= Doubles{};
    Doubles last = zero ? all(INFINITY) : top, total = zero ? Doubles{} : top;
    for (;;) {
        Words open = (total <= threshold) & (next > Doubles{});
        if (!any(open)) break;
        last = open ? next : last, total = open ? total + next : total;
        Chains below(0);
        EACH_SYNAPSE(i) {
            Doubles v = at(c + i * LANES);
            below[i] = max(v < last ? v : Doubles{}, below[i]);
        }
        next = open ? below.largest() : Doubles{};
    }
    Chains kept_sums(0);
    EACH_SYNAPSE(i) {
        Doubles v = at(c + i * LANES);
        kept_sums[i] = v >= last ? kept_sums[i] + v : kept_sums[i];
    }
    const Doubles sums = kept_sums.sum();
    const Words there = lane < neurons, equal = there & (sums != total), good = there & (sums == total);
    Keys key[2] = {};
    for (Py_ssize_t i = 0; i < padded; i += LANES) {
        Words mask[LANES], any_lane = {};
#pragma GCC unroll 8
        for (int j = 0; j < LANES; j++) {
            mask[j] = (at(c + (i + j) * LANES) >= last) & good;
            for (int word = 0; word < 2; word++)
                key[word] += (Keys)mask[j] & layer.synapse_keys[word * padded + i + j];
        }
        transpose(mask);
#pragma GCC unroll 8
        for (int j = 0; j < LANES; j++) any_lane |= mask[j];
        at(kept.marked + i) |= any_lane;
    }
    for (int word = 0; word < 2; word++) kept.signature[word] += key[word] * keys[word];
    if (any((equal | zero) & there))
        for (int l = 0; l < neurons; l++) {
            if (zero[l]) keep_one(layer, 0, q[l], kept);
            if (!equal[l]) continue;
            for (Py_ssize_t i = 0; i < padded; i++) row[i] = c[i * LANES + l];
            keep_with_ties(layer, row, threshold[l], q[l], kept);
        }
    return true;
}

/* Samples [first, last) of a layer; false if a contribution is not finite. */
template <class Weight>
INLINE bool fold_samples(const Layer &layer, Py_ssize_t first, Py_ssize_t last, double *scratch) {
    const Py_ssize_t padded = layer.padded;
    double *r = scratch, *c = r + layer.taps * padded, *oriented = c + padded, *together = oriented + 2 * padded;
    int32_t *q = reinterpret_cast<int32_t *>(together + PADDING * padded);
    memset(r, 0, layer.taps * padded * sizeof *r);
    for (Py_ssize_t s = first; s < last; s++) {
        const uint8_t *active = layer.active + s * layer.units;
        const double *value = layer.value + s * layer.taps * layer.inputs, *mean = layer.mean;
        Kept kept = {reinterpret_cast<int64_t *>(oriented + padded), {{}, {}}};
        for (Py_ssize_t tap = 0; tap < layer.taps; tap++, value += layer.inputs, mean += layer.inputs)
            for (Py_ssize_t i = 0; i < layer.inputs; i++) r[tap * padded + i] = (float)(value[i] - mean[i]);
        memset(kept.marked, 0, padded * sizeof *kept.marked);
        const Py_ssize_t neurons = active_neurons(active, layer.units, q);
        for (Py_ssize_t k = 0; k < neurons;) {
            const int some = (int)(neurons - k < LANES ? neurons - k : LANES);
            if (padded <= FEW && some > LANES / 2) {
                if (!keep_together<Weight>(layer, q + k, some, r, together, c, kept)) return false;
                k += some;
            } else if (!keep<Weight>(layer, q[k++], r, c, oriented, kept))
                return false;
        }
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
