/* Signatures of texts: folding, rolling hashes of shingles and MinHash in one pass over each text; overlaps of sets.
 *
 * In: strings, the table of folded code points and that of their random values. Out: folded codes, their ends and the
 * numbers of shingles as bytes, bands written into an array. `signatures.minhash` has the same in numpy, which is the
 * reference. Cost: two lookups a character, one hash a shingle and about SIZE ln SIZE hashes a text.
 */
#include "_kernels.h"

#define ROW_BASE UINT64_C(0x9E3779B97F4A7C15)
#define EMPTY UINT64_MAX

typedef struct {
    uint64_t seed;
    Py_ssize_t shingle, bands, rows;
} Shape;

typedef struct {
    uint32_t *codes;  /* folded, of all texts */
    uint64_t *hashes; /* of the shingles of one text */
    Py_UCS4 *text;
    Py_ssize_t used, room, hash_room, text_room;
} Buffers;

static int grow(void **items, Py_ssize_t *room, Py_ssize_t needed, size_t size) {
    if (needed <= *room) return 0;
    Py_ssize_t wanted = needed + (needed >> 2) + 64;
    void *larger = PyMem_Realloc(*items, (size_t)wanted * size);
    if (larger == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    *items = larger;
    *room = wanted;
    return 0;
}

/* The finalizer of MurmurHash3 (Appleby, 2011). */
static inline uint64_t mix(uint64_t bits) {
    bits ^= bits >> 33;
    bits *= UINT64_C(0xFF51AFD7ED558CCD);
    bits ^= bits >> 33;
    bits *= UINT64_C(0xC4CEB9FE1A85EC53);
    return bits ^ bits >> 33;
}

/* Fill the slots by rounds until none is empty (Dahlgaard, Knudsen and Thorup, 2017, algorithm 1). A value has its round
 * in the upper half, so later rounds change no slot that is filled. */
static void sketch(const uint64_t *hashes, Py_ssize_t count, uint64_t seed, uint64_t *slots, Py_ssize_t size) {
    for (Py_ssize_t slot = 0; slot < size; slot++) slots[slot] = EMPTY;
    Py_ssize_t empty = size;
    for (Py_ssize_t round = 0; empty; round++) {
        uint64_t salt = mix(seed + (uint64_t)round * ROW_BASE), upper = (uint64_t)round << 32;
        for (Py_ssize_t at = 0; at < count; at++) {
            uint64_t hash = mix(hashes[at] ^ salt), value = upper | (hash & UINT32_MAX);
            Py_ssize_t slot = round < size ? (Py_ssize_t)((hash >> 32) * (uint64_t)size >> 32) : round - size;
            slots[slot] = slots[slot] < value ? slots[slot] : value;
        }
        empty = 0;
        for (Py_ssize_t slot = 0; slot < size; slot++) empty += slots[slot] == EMPTY;
    }
}

/* One hash for the values of each band. */
static void bands_of(const uint64_t *slots, const Shape *shape, uint64_t *bands) {
    for (Py_ssize_t band = 0; band < shape->bands; band++) {
        uint64_t mixed = 0;
        for (Py_ssize_t row = 0; row < shape->rows; row++)
            mixed = mix((mixed ^ slots[band * shape->rows + row]) * ROW_BASE);
        bands[band] = mixed;
    }
}

/* The shingles of one text, `codes` without its prefix, as rolling hashes; returns how many. */
static Py_ssize_t shingles_of(const uint32_t *codes, Py_ssize_t length, const uint64_t *values, Py_ssize_t shingle,
                              uint64_t *hashes) {
    if (length < shingle) return 0;
    uint64_t highest = 1, hash = 0;
    for (Py_ssize_t at = 0; at < shingle; at++) {
        hash = hash * ROW_BASE + values[codes[at]];
        if (at) highest *= ROW_BASE;
    }
    hashes[0] = hash;
    for (Py_ssize_t at = shingle; at < length; at++) {
        hash = (hash - values[codes[at - shingle]] * highest) * ROW_BASE + values[codes[at]];
        hashes[at - shingle + 1] = hash;
    }
    return length - shingle + 1;
}

/* Append the folded codes of a text; returns how many, or -1. */
static Py_ssize_t fold(PyObject *string, const uint32_t *table, Buffers *buffers) {
    Py_ssize_t length = PyUnicode_GetLength(string);
    if (length < 0 || grow((void **)&buffers->text, &buffers->text_room, length + 1, sizeof(Py_UCS4)) < 0 ||
        grow((void **)&buffers->codes, &buffers->room, buffers->used + length, sizeof(uint32_t)) < 0)
        return -1;
    if (length && PyUnicode_AsUCS4(string, buffers->text, length, 0) == NULL) return -1;
    uint32_t *out = buffers->codes + buffers->used;
    Py_ssize_t kept = 0;
    for (Py_ssize_t at = 0; at < length; at++) {
        uint32_t code = table[buffers->text[at]];
        out[kept] = code;
        kept += code != 0;
    }
    buffers->used += kept;
    return kept;
}

static int sign(PyObject *texts, const uint32_t *table, const uint64_t *values, const Py_buffer *prefix,
                const Shape *shape, uint64_t *bands, Buffers *buffers, uint64_t *ends, uint64_t *counts) {
    Py_ssize_t size = shape->bands * shape->rows, skipped = prefix->len / (Py_ssize_t)sizeof(uint32_t), result = -1;
    uint64_t *slots = PyMem_Malloc((size_t)size * sizeof(uint64_t));
    if (slots == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t index = 0; index < PyList_Size(texts); index++) {
        Py_ssize_t length = fold(PyList_GetItem(texts, index), table, buffers);
        if (length < 0 || grow((void **)&buffers->hashes, &buffers->hash_room, length + 1, sizeof(uint64_t)) < 0)
            goto done;
        const uint32_t *codes = buffers->codes + buffers->used - length;
        for (Py_ssize_t at = 0; at < length; at++) {
            if (codes[at] >= CODE_POINTS) {
                PyErr_Format(PyExc_ValueError, "the table folds to %u, which is no code point", codes[at]);
                goto done;
            }
        }
        Py_ssize_t from = skipped && length >= skipped && !memcmp(codes, prefix->buf, (size_t)prefix->len) ? skipped : 0;
        Py_ssize_t count = shingles_of(codes + from, length - from, values, shape->shingle, buffers->hashes);
        ends[index] = (uint64_t)buffers->used;
        counts[index] = (uint64_t)count;
        if (count) {
            sketch(buffers->hashes, count, shape->seed, slots, size);
            bands_of(slots, shape, bands + index * shape->bands);
        }
    }
    result = 0;
done:
    PyMem_Free(slots);
    return (int)result;
}

PyObject *signatures(PyObject *module, PyObject *args) {
    PyObject *texts, *table_array, *values_array, *prefix_array, *bands_array, *result = NULL;
    Shape shape;
    unsigned long long seed;
    if (!PyArg_ParseTuple(args, "O!OOOnnnKO", &PyList_Type, &texts, &table_array, &values_array, &prefix_array,
                          &shape.shingle, &shape.bands, &shape.rows, &seed, &bands_array))
        return NULL;
    shape.seed = seed;
    if (shape.shingle < 1 || shape.bands < 1 || shape.rows < 1 || shape.bands > 1024 || shape.rows > 1024) {
        PyErr_SetString(PyExc_ValueError, "no such shape");
        return NULL;
    }
    Py_ssize_t count = PyList_Size(texts);
    Py_buffer table, values, prefix, bands;
    if (view(table_array, &table, 4, CODE_POINTS, PyBUF_SIMPLE) < 0) return NULL;
    if (view(values_array, &values, 8, CODE_POINTS, PyBUF_SIMPLE) < 0) goto no_values;
    if (view(prefix_array, &prefix, 4, 0, PyBUF_SIMPLE) < 0) goto no_prefix;
    if (view(bands_array, &bands, 8, count * shape.bands, PyBUF_WRITABLE) < 0) goto no_bands;
    Buffers buffers = {0};
    uint64_t *ends = PyMem_Malloc((size_t)(2 * count + 1) * sizeof(uint64_t));
    if (ends == NULL)
        PyErr_NoMemory();
    else if (sign(texts, table.buf, values.buf, &prefix, &shape, bands.buf, &buffers, ends, ends + count) == 0)
        result = Py_BuildValue("y#y#y#", buffers.codes ? (char *)buffers.codes : "",
                               buffers.used * (Py_ssize_t)sizeof(uint32_t), (char *)ends,
                               count * (Py_ssize_t)sizeof(uint64_t), (char *)(ends + count),
                               count * (Py_ssize_t)sizeof(uint64_t));
    PyMem_Free(ends);
    PyMem_Free(buffers.codes);
    PyMem_Free(buffers.hashes);
    PyMem_Free(buffers.text);
    PyBuffer_Release(&bands);
no_bands:
    PyBuffer_Release(&prefix);
no_prefix:
    PyBuffer_Release(&values);
no_values:
    PyBuffer_Release(&table);
    return result;
}

/* Numbers that two ascending sequences without repetitions share. */
static int64_t shared(const uint32_t *one, int64_t ones, const uint32_t *other, int64_t others) {
    int64_t found = 0, left = 0, right = 0;
    while (left < ones && right < others) {
        uint32_t first = one[left], second = other[right];
        found += first == second;
        left += first <= second;
        right += second <= first;
    }
    return found;
}

/* For pairs of sets of a flat array: how many numbers each pair shares. */
PyObject *overlaps(PyObject *module, PyObject *args) {
    PyObject *flat_array, *starts_array, *first_array, *second_array, *out_array, *result = NULL;
    Py_ssize_t sets, pairs;
    if (!PyArg_ParseTuple(args, "OOnOOnO", &flat_array, &starts_array, &sets, &first_array, &second_array, &pairs, &out_array))
        return NULL;
    if (sets < 0 || pairs < 0) {
        PyErr_SetString(PyExc_ValueError, "no such sets");
        return NULL;
    }
    Py_buffer flat, starts, first, second, out;
    if (view(flat_array, &flat, 4, 0, PyBUF_SIMPLE) < 0) return NULL;
    if (view(starts_array, &starts, 8, sets + 1, PyBUF_SIMPLE) < 0) goto no_starts;
    if (view(first_array, &first, 8, pairs, PyBUF_SIMPLE) < 0) goto no_first;
    if (view(second_array, &second, 8, pairs, PyBUF_SIMPLE) < 0) goto no_second;
    if (view(out_array, &out, 8, pairs, PyBUF_WRITABLE) < 0) goto no_out;
    const uint32_t *numbers = flat.buf;
    const int64_t *begins = starts.buf, *ones = first.buf, *others = second.buf;
    int64_t room = flat.len / (Py_ssize_t)sizeof(uint32_t), *counts = out.buf;
    for (Py_ssize_t set = 0; set < sets; set++) {
        if (begins[set] < 0 || begins[set] > begins[set + 1] || begins[set + 1] > room) {
            PyErr_SetString(PyExc_ValueError, "a set outside of the numbers");
            goto done;
        }
    }
    for (Py_ssize_t pair = 0; pair < pairs; pair++) {
        int64_t one = ones[pair], other = others[pair];
        if (one < 0 || one >= sets || other < 0 || other >= sets) {
            PyErr_SetString(PyExc_ValueError, "no such set");
            goto done;
        }
        counts[pair] = shared(numbers + begins[one], begins[one + 1] - begins[one], numbers + begins[other],
                              begins[other + 1] - begins[other]);
    }
    result = Py_NewRef(Py_None);
done:
    PyBuffer_Release(&out);
no_out:
    PyBuffer_Release(&second);
no_second:
    PyBuffer_Release(&first);
no_first:
    PyBuffer_Release(&starts);
no_starts:
    PyBuffer_Release(&flat);
    return result;
}
