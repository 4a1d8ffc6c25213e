/* The inner loop of slicing, compiled: see fairneuron/kernel.py, which has the same in torch.
 *
 * For each active neuron of a layer: its contributions (sums over taps of weight times value), the shortest prefix of them (sorted) whose sum exceeds
 * gamma |v|, and the keys of the kept synapses. Nothing is sorted: the largest contribution may be enough; else a
 * threshold is searched that parts the kept from the others. Every sum is exact (see `grid`), so its order, and with it
 * the width of the machine's vectors, does not matter.
 *
 * Needs the vector types of GCC and Clang; no C++ library. Arrays are padded with zeros to whole vectors.
 */
#ifndef Py_GIL_DISABLED /* free-threaded builds have no stable interface */
#define Py_LIMITED_API 0x030b0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define INLINE_MEMBER inline __attribute__((always_inline))
enum { PIVOTS = 3, NEAR = 3, FEW = 64, PADDING = 8 };

struct Layer {
    const void *weight;           /* (units, taps, padded) */
    const double *value;          /* (samples, taps, inputs): activations that the weights meet */
    const double *mean;           /* (taps, inputs) */
    const uint8_t *active;        /* (samples, units) */
    uint8_t *source;              /* (samples, inputs): set where a kept synapse comes from */
    const uint64_t *unit_keys;    /* (units, 2) */
    const uint64_t *synapse_keys; /* (2, padded) */
    uint64_t *signature;          /* (samples, 2) */
    Py_ssize_t units, taps, inputs, padded;
    double gamma;
    double smallest; /* above 0, for the thread: denormals may count as 0 */
    int absolute;
};

/* A function per instruction set; the widest that the machine has is called. */
#define ISA baseline
#define LANES 2
#include "_rows.h"
#undef ISA
#undef LANES
#if defined(__x86_64__)
#define WIDER 1
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif
#define ISA avx2
#define LANES 4
#include "_rows.h"
#undef ISA
#undef LANES
#ifdef __clang__
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512vl,avx512bw"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,prefer-vector-width=512")
#endif
#define ISA avx512
#define LANES 8
#include "_rows.h"
#undef ISA
#undef LANES
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

struct Variant {
    const char *name;
    bool (*fold_float)(const Layer &, Py_ssize_t, Py_ssize_t, double *);
    bool (*fold_double)(const Layer &, Py_ssize_t, Py_ssize_t, double *);
};

/* Those that this machine can run, the widest first; returns how many. */
static int usable(Variant *found) {
    int n = 0;
#ifdef WIDER
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw"))
        found[n++] = {"avx512", avx512::fold_float, avx512::fold_double};
    if (__builtin_cpu_supports("avx2")) found[n++] = {"avx2", avx2::fold_float, avx2::fold_double};
#endif
    found[n++] = {"baseline", baseline::fold_float, baseline::fold_double};
    return n;
}

static int view(PyObject *object, Py_buffer *buffer, int writable, Py_ssize_t rows, Py_ssize_t columns,
                Py_ssize_t itemsize, const char *what) {
    if (PyObject_GetBuffer(object, buffer, writable ? PyBUF_CONTIG : PyBUF_CONTIG_RO)) return -1;
    if (buffer->len != rows * columns * itemsize || buffer->itemsize != itemsize) {
        PyErr_Format(PyExc_ValueError, "%s must be %zd x %zd numbers of %zd bytes", what, rows, columns, itemsize);
        PyBuffer_Release(buffer);
        return -1;
    }
    return 0;
}

enum { WEIGHTS, VALUE, MEAN, ACTIVE, SOURCE, UNIT_KEYS, SYNAPSE_KEYS, SIGNATURE, BUFFERS };

PyDoc_STRVAR(fold_doc,
             "fold(weight, value, mean, active, source, unit_keys, synapse_keys, signature, sizes, bits, gamma, absolute, "
             "first, last, isa)\n\nWhether all contributions of the samples [first, last) were finite; sizes: samples, "
             "units, taps, inputs, padded; isa: position in instruction_sets().");

static PyObject *fold(PyObject *self, PyObject *args) {
    static const char *const names[BUFFERS] = {"weight", "value", "mean", "active",
                                               "source", "unit_keys", "synapse_keys", "signature"};
    PyObject *objects[BUFFERS];
    Py_buffer buffers[BUFFERS];
    Layer layer;
    Py_ssize_t samples, units, taps, inputs, padded, first, last;
    int bits, isa, open = 0;
    Variant variants[3];
    bool finite = false;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOOOOOO(nnnnn)idpnni", &objects[0], &objects[1], &objects[2], &objects[3], &objects[4],
                          &objects[5], &objects[6], &objects[7], &samples, &units, &taps, &inputs, &padded,
                          &bits, &layer.gamma, &layer.absolute, &first, &last, &isa))
        return NULL;
    if ((bits != 32 && bits != 64) || taps < 1 || inputs < 1 || padded < inputs || padded % PADDING || units < 0 || units > INT32_MAX || first < 0 ||
        last < first || samples < last || isa < 0 || isa >= usable(variants)) {
        PyErr_SetString(PyExc_ValueError, "sizes that do not fit");
        return NULL;
    }
    const Py_ssize_t shape[BUFFERS][3] = {
        {units, taps * padded, bits / 8}, {samples, taps * inputs, 8}, {taps, inputs, 8}, {samples, units, 1},
        {samples, inputs, 1},      {units, 2, 8},        {2, padded, 8}, {samples, 2, 8},
    };
    for (; open < BUFFERS; open++)
        if (view(objects[open], &buffers[open], open == SOURCE || open == SIGNATURE, shape[open][0], shape[open][1],
                 shape[open][2], names[open]))
            break;
    char *scratch = open == BUFFERS ? static_cast<char *>(malloc((3 + PADDING + taps) * padded * sizeof(double) + (units + 1) * sizeof(int32_t) + 64)) : NULL;
    if (scratch) {
        layer.weight = buffers[WEIGHTS].buf;
        layer.value = static_cast<const double *>(buffers[VALUE].buf);
        layer.mean = static_cast<const double *>(buffers[MEAN].buf);
        layer.active = static_cast<const uint8_t *>(buffers[ACTIVE].buf);
        layer.source = static_cast<uint8_t *>(buffers[SOURCE].buf);
        layer.unit_keys = static_cast<const uint64_t *>(buffers[UNIT_KEYS].buf);
        layer.synapse_keys = static_cast<const uint64_t *>(buffers[SYNAPSE_KEYS].buf);
        layer.signature = static_cast<uint64_t *>(buffers[SIGNATURE].buf);
        layer.units = units, layer.taps = taps, layer.inputs = inputs, layer.padded = padded;
        double *aligned = reinterpret_cast<double *>((reinterpret_cast<uintptr_t>(scratch) + 63) & ~uintptr_t(63));
        const volatile double denormal = 4.9406564584124654e-324; /* compared at run time */
        layer.smallest = denormal > 0 ? denormal : DBL_MIN;
        Py_BEGIN_ALLOW_THREADS
        finite = (bits == 32 ? variants[isa].fold_float : variants[isa].fold_double)(layer, first, last, aligned);
        Py_END_ALLOW_THREADS
    } else if (open == BUFFERS)
        PyErr_NoMemory();
    free(scratch);
    while (open--) PyBuffer_Release(&buffers[open]);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(finite);
}

static PyObject *instruction_sets(PyObject *self, PyObject *args) {
    Variant variants[3];
    const int n = usable(variants);
    PyObject *names = PyList_New(n);
    (void)self, (void)args;
    for (int i = 0; names && i < n; i++) PyList_SetItem(names, i, PyUnicode_FromString(variants[i].name));
    return names;
}

static PyMethodDef methods[] = {
    {"fold", fold, METH_VARARGS, fold_doc},
    {"instruction_sets", instruction_sets, METH_NOARGS, "Names of those that the machine has, the widest first."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_kernel", "The inner loop of slicing, compiled.", 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModuleDef_Init(&definition); }
