/* Signatures of texts: folding, rolling hashes of shingles and MinHash in one pass over each text; sets of shingles, and
 * what pairs of sets share.
 *
 * In: strings, the table of folded code points and that of their random values. Out: folded codes, their ends and the
 * numbers of shingles as bytes, bands written into an array; or sets of shingles as bytes. `signatures.minhash` has the
 * same in numpy, which is the reference. Cost: two lookups a character, one hash a shingle and about SIZE ln SIZE hashes
 * a text; a set is sorted in four passes.
 */
#include "_kernels.h"

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

/* Fold a text behind those in `buffers` and hash the shingles after its prefix; returns how many there are, or -1. */
static Py_ssize_t shingles_of_text(PyObject *text, const uint32_t *table, const uint64_t *values,
                                   const Py_buffer *prefix, Py_ssize_t shingle, Buffers *buffers) {
    Py_ssize_t skipped = prefix->len / (Py_ssize_t)sizeof(uint32_t), length = fold(text, table, buffers);
    if (length < 0 || grow((void **)&buffers->hashes, &buffers->hash_room, length + 1, sizeof(uint64_t)) < 0) return -1;
    const uint32_t *codes = buffers->codes + buffers->used - length;
    if (check_codes(codes, length) < 0) return -1;
    Py_ssize_t from = skipped && length >= skipped && !memcmp(codes, prefix->buf, (size_t)prefix->len) ? skipped : 0;
    return rolling_hashes(codes + from, length - from, values, shingle, buffers->hashes);
}

static void free_buffers(Buffers *buffers) {
    PyMem_Free(buffers->codes);
    PyMem_Free(buffers->hashes);
    PyMem_Free(buffers->text);
}

static int sign(PyObject *texts, const uint32_t *table, const uint64_t *values, const Py_buffer *prefix,
                const Shape *shape, uint64_t *bands, Buffers *buffers, uint64_t *ends, uint64_t *counts) {
    Py_ssize_t size = shape->bands * shape->rows;
    int result = -1;
    uint64_t *slots = PyMem_Malloc((size_t)size * sizeof(uint64_t));
    if (slots == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t index = 0; index < PyList_Size(texts); index++) {
        PyObject *text = PyList_GetItem(texts, index);
        Py_ssize_t count = shingles_of_text(text, table, values, prefix, shape->shingle, buffers);
        if (count < 0) goto done;
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
    return result;
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
    free_buffers(&buffers);
    PyBuffer_Release(&bands);
no_bands:
    PyBuffer_Release(&prefix);
no_prefix:
    PyBuffer_Release(&values);
no_values:
    PyBuffer_Release(&table);
    return result;
}

/* Sort numbers by their bytes; `spare` has room for as many. */
static void sort_numbers(uint32_t *numbers, uint32_t *spare, Py_ssize_t count) {
    Py_ssize_t places[4][256];
    memset(places, 0, sizeof places);
    for (Py_ssize_t at = 0; at < count; at++)
        for (int byte = 0; byte < 4; byte++) places[byte][numbers[at] >> 8 * byte & 255]++;
    for (int byte = 0; byte < 4; byte++) {
        Py_ssize_t before = 0;
        for (int value = 0; value < 256; value++) {
            Py_ssize_t here = places[byte][value];
            places[byte][value] = before;
            before += here;
        }
        for (Py_ssize_t at = 0; at < count; at++) spare[places[byte][numbers[at] >> 8 * byte & 255]++] = numbers[at];
        uint32_t *other = numbers;
        numbers = spare;
        spare = other;
    }
}

typedef struct {
    uint32_t *flat, *spare;
    Py_ssize_t used, room, spare_room;
} Sets;

/* Append the set of shingles of each text, ascending, with zeros for what was there more than once. */
static int collect(PyObject *texts, const uint32_t *table, const uint64_t *values, const Py_buffer *prefix,
                   Py_ssize_t shingle, Buffers *buffers, Sets *sets, int64_t *starts, int64_t *sizes) {
    for (Py_ssize_t index = 0; index < PyList_Size(texts); index++) {
        buffers->used = 0;
        PyObject *text = PyList_GetItem(texts, index);
        Py_ssize_t count = shingles_of_text(text, table, values, prefix, shingle, buffers), kept = 0;
        if (count < 0 || grow((void **)&sets->flat, &sets->room, sets->used + count + 1, sizeof(uint32_t)) < 0 ||
            grow((void **)&sets->spare, &sets->spare_room, count + 1, sizeof(uint32_t)) < 0)
            return -1;
        uint32_t *own = sets->flat + sets->used;
        for (Py_ssize_t at = 0; at < count; at++) own[at] = (uint32_t)(buffers->hashes[at] >> 32);
        sort_numbers(own, sets->spare, count);
        for (Py_ssize_t at = 0; at < count; at++)
            if (!at || own[at] != own[kept - 1]) own[kept++] = own[at];
        memset(own + kept, 0, (size_t)(count - kept) * sizeof(uint32_t));
        starts[index] = sets->used;
        sizes[index] = kept;
        sets->used += count;
    }
    return 0;
}

PyObject *shingle_sets(PyObject *module, PyObject *args) {
    PyObject *texts, *table_array, *values_array, *prefix_array, *result = NULL;
    Py_ssize_t shingle;
    if (!PyArg_ParseTuple(args, "O!OOOn", &PyList_Type, &texts, &table_array, &values_array, &prefix_array, &shingle))
        return NULL;
    if (shingle < 1) {
        PyErr_SetString(PyExc_ValueError, "no such shape");
        return NULL;
    }
    Py_ssize_t count = PyList_Size(texts);
    Py_buffer table, values, prefix;
    if (view(table_array, &table, 4, CODE_POINTS, PyBUF_SIMPLE) < 0) return NULL;
    if (view(values_array, &values, 8, CODE_POINTS, PyBUF_SIMPLE) < 0) goto no_values;
    if (view(prefix_array, &prefix, 4, 0, PyBUF_SIMPLE) < 0) goto no_prefix;
    Buffers buffers = {0};
    Sets sets = {0};
    int64_t *starts = PyMem_Malloc((size_t)(2 * count + 1) * sizeof(int64_t));
    if (starts == NULL)
        PyErr_NoMemory();
    else if (collect(texts, table.buf, values.buf, &prefix, shingle, &buffers, &sets, starts, starts + count) == 0)
        result = Py_BuildValue("y#y#y#", sets.flat ? (char *)sets.flat : "", sets.used * (Py_ssize_t)sizeof(uint32_t),
                               (char *)starts, count * (Py_ssize_t)sizeof(int64_t), (char *)(starts + count),
                               count * (Py_ssize_t)sizeof(int64_t));
    PyMem_Free(starts);
    PyMem_Free(sets.flat);
    PyMem_Free(sets.spare);
    free_buffers(&buffers);
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

#define MARKS (1 << 17)
#define AT_ONCE 64

/* A set whose numbers are marked by their lower bits, so a number without a mark is not in it. */
typedef struct {
    uint64_t *bits;
    const uint32_t *numbers;
    int64_t size;
} Marked;

static void mark(Marked *marked, const uint32_t *numbers, int64_t size) {
    if (marked->numbers == numbers && marked->size == size) return;
    for (int64_t at = 0; at < marked->size; at++) marked->bits[marked->numbers[at] % MARKS / 64] = 0;
    for (int64_t at = 0; at < size; at++) marked->bits[numbers[at] % MARKS / 64] |= UINT64_C(1) << numbers[at] % 64;
    marked->numbers = numbers;
    marked->size = size;
}

/* Whether more than `most` of the numbers are not in the marked set; false where the marks do not show it. */
static int lacks(const Marked *marked, const uint32_t *numbers, int64_t size, int64_t most) {
    int64_t missing = 0;
    for (int64_t at = 0; at < size && missing <= most;) {
        int64_t stop = size - at < AT_ONCE ? size : at + AT_ONCE;
        for (; at < stop; at++) missing += ~(marked->bits[numbers[at] % MARKS / 64] >> numbers[at] % 64) & 1;
    }
    return missing > most;
}

/* For pairs of sets: how many numbers they share, or 0 where so few that their similarity is below `least`. Pairs with
 * the same first set in turn are fast: most of those below are told apart by marks, in one step a number. */
static int count_shared(const Py_buffer *flat, const int64_t *starts, const int64_t *sizes, Py_ssize_t sets,
                        const int64_t *ones, const int64_t *others, Py_ssize_t pairs, double least, int64_t *counts) {
    const uint32_t *numbers = flat->buf;
    int64_t room = flat->len / (Py_ssize_t)sizeof(uint32_t);
    for (Py_ssize_t set = 0; set < sets; set++) {
        if (starts[set] < 0 || sizes[set] < 0 || sizes[set] > room || starts[set] > room - sizes[set]) {
            PyErr_SetString(PyExc_ValueError, "a set outside of the numbers");
            return -1;
        }
    }
    Marked marked = {PyMem_Calloc(MARKS / 64, sizeof(uint64_t)), NULL, 0};
    if (marked.bits == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t pair = 0; pair < pairs; pair++) {
        int64_t one = ones[pair], other = others[pair];
        if (one < 0 || one >= sets || other < 0 || other >= sets) {
            PyErr_SetString(PyExc_ValueError, "no such set");
            PyMem_Free(marked.bits);
            return -1;
        }
        const uint32_t *first = numbers + starts[one], *second = numbers + starts[other];
        int64_t fewest = (int64_t)(least / (1 + least) * (double)(sizes[one] + sizes[other]));
        if (fewest > 0) {
            counts[pair] = 0;
            if (sizes[one] < fewest || sizes[other] < fewest) continue;
            mark(&marked, first, sizes[one]);
            if (lacks(&marked, second, sizes[other], sizes[other] - fewest)) continue;
        }
        counts[pair] = shared(first, sizes[one], second, sizes[other]);
    }
    PyMem_Free(marked.bits);
    return 0;
}

PyObject *overlaps(PyObject *module, PyObject *args) {
    PyObject *flat_array, *starts_array, *sizes_array, *first_array, *second_array, *out_array, *result = NULL;
    Py_ssize_t sets, pairs;
    double least;
    if (!PyArg_ParseTuple(args, "OOOnOOndO", &flat_array, &starts_array, &sizes_array, &sets, &first_array, &second_array,
                          &pairs, &least, &out_array))
        return NULL;
    if (sets < 0 || pairs < 0 || !(least >= 0 && least <= 1)) {
        PyErr_SetString(PyExc_ValueError, "no such sets");
        return NULL;
    }
    Py_buffer flat, starts, sizes, first, second, out;
    if (view(flat_array, &flat, 4, 0, PyBUF_SIMPLE) < 0) return NULL;
    if (view(starts_array, &starts, 8, sets, PyBUF_SIMPLE) < 0) goto no_starts;
    if (view(sizes_array, &sizes, 8, sets, PyBUF_SIMPLE) < 0) goto no_sizes;
    if (view(first_array, &first, 8, pairs, PyBUF_SIMPLE) < 0) goto no_first;
    if (view(second_array, &second, 8, pairs, PyBUF_SIMPLE) < 0) goto no_second;
    if (view(out_array, &out, 8, pairs, PyBUF_WRITABLE) < 0) goto no_out;
    if (count_shared(&flat, starts.buf, sizes.buf, sets, first.buf, second.buf, pairs, least, out.buf) == 0)
        result = Py_NewRef(Py_None);
    PyBuffer_Release(&out);
no_out:
    PyBuffer_Release(&second);
no_second:
    PyBuffer_Release(&first);
no_first:
    PyBuffer_Release(&sizes);
no_sizes:
    PyBuffer_Release(&starts);
no_starts:
    PyBuffer_Release(&flat);
    return result;
}
