/* Shared by the files of the extension. */
#ifndef CORPUS_KERNELS_H
#define CORPUS_KERNELS_H

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

#define CODE_POINTS 0x110000
#define BASIC_PLANE 0x10000

/* A contiguous, aligned buffer of at least `count` items of `size` bytes. */
static inline int view(PyObject *array, Py_buffer *buffer, Py_ssize_t size, Py_ssize_t count, int flags) {
    if (PyObject_GetBuffer(array, buffer, PyBUF_C_CONTIGUOUS | flags) < 0) return -1;
    if (buffer->len < size * count || (size <= 8 && (uintptr_t)buffer->buf % (size_t)size)) {
        PyErr_Format(PyExc_ValueError, "%zd bytes at %p where %zd items of %zd bytes are needed", buffer->len, buffer->buf,
                     count, size);
        PyBuffer_Release(buffer);
        return -1;
    }
    return 0;
}

/* Make room for so many items; what `items` points to is the array. */
static inline int resized(void *items, Py_ssize_t count, size_t size) {
    void **place = items, *larger = PyMem_Realloc(*place, (size_t)count * size);
    if (larger == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    *place = larger;
    return 0;
}

/* Whether folded codes are code points, for which there are random values. */
static inline int check_codes(const uint32_t *codes, Py_ssize_t length) {
    for (Py_ssize_t at = 0; at < length; at++) {
        if (codes[at] >= CODE_POINTS) {
            PyErr_Format(PyExc_ValueError, "the table folds to %u, which is no code point", codes[at]);
            return -1;
        }
    }
    return 0;
}

#define ROW_BASE UINT64_C(0x9E3779B97F4A7C15)

/* The hashes of all n-grams of codes; returns how many there are. */
static inline Py_ssize_t rolling_hashes(const uint32_t *codes, Py_ssize_t length, const uint64_t *values, Py_ssize_t gram,
                                        uint64_t *hashes) {
    if (length < gram) return 0;
    uint64_t highest = 1, hash = 0;
    for (Py_ssize_t at = 0; at < gram; at++) {
        hash = hash * ROW_BASE + values[codes[at]];
        if (at) highest *= ROW_BASE;
    }
    hashes[0] = hash;
    for (Py_ssize_t at = gram; at < length; at++) {
        hash = (hash - values[codes[at - gram]] * highest) * ROW_BASE + values[codes[at]];
        hashes[at - gram + 1] = hash;
    }
    return length - gram + 1;
}

PyObject *vocabulary(PyObject *module, PyObject *args);
PyObject *encode(PyObject *module, PyObject *args);
PyObject *gather(PyObject *module, PyObject *args);
PyObject *gram_hashes(PyObject *module, PyObject *args);
PyObject *overlaps(PyObject *module, PyObject *args);
PyObject *shingle_sets(PyObject *module, PyObject *args);
PyObject *signatures(PyObject *module, PyObject *args);
PyObject *winnow(PyObject *module, PyObject *args);
PyObject *with_spans(PyObject *module, PyObject *args);

#endif
