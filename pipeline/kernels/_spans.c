/* Texts that may share a span with an index: folding, rolling hashes and lookups, text by text.
 *
 * In: strings, the table of folded code points and that of their random values, the hashes of n-grams (sorted, and as two
 * rows of bits) with those that count, and the hashes of the heads of lines (sorted). Out: a byte for each text, 1 where
 * n-grams of the index follow each other over enough weight and one of them counts, or where a line has such a head.
 * `decontaminate.matching` finds the spans themselves, in these texts alone.
 * Cost: two lookups and a multiplication a character, and one of a bit; one character in 16 is looked up in the second
 * row, one in 256 searched.
 */
#include "_kernels.h"

#define OTHER UINT64_C(0xBF58476D1CE4E5B9)

typedef struct {
    const uint32_t *table;
    const uint64_t *values;
    Py_ssize_t gram, head;    /* codes of an n-gram, and of the head of a line */
    const uint64_t *grams, *heads;
    Py_ssize_t gram_count, head_count;
    const uint8_t *counts;    /* of n-grams: whether it counts */
    const uint8_t *bits;      /* two rows, one after the other */
    int shift;                /* from a hash to its bit */
    uint32_t wide;            /* codes from here on have this weight, others 1 */
    long wide_weight, least;  /* and the weight of a span */
} Index;

typedef struct {
    Py_UCS4 *text;
    uint32_t *codes;  /* folded */
    uint64_t *hashes; /* of the n-grams */
    uint32_t *lines;  /* where lines begin in the codes */
    Py_ssize_t room;
} Buffers;

static int make_room(Buffers *own, Py_ssize_t length) {
    if (length <= own->room) return 0;
    Py_ssize_t wanted = length + (length >> 2);
    if (resized(&own->text, wanted, sizeof *own->text) < 0 || resized(&own->codes, wanted, sizeof *own->codes) < 0 ||
        resized(&own->hashes, wanted, sizeof *own->hashes) < 0 ||
        resized(&own->lines, wanted + 1, sizeof *own->lines) < 0)
        return -1;
    own->room = wanted;
    return 0;
}

/* The place of a hash among sorted ones, or -1. */
static Py_ssize_t place_of(const uint64_t *hashes, Py_ssize_t count, uint64_t hash) {
    Py_ssize_t low = 0, high = count;
    while (low < high) {
        Py_ssize_t middle = low + (high - low) / 2;
        if (hashes[middle] < hash)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && hashes[low] == hash ? low : -1;
}

static inline int has_bit(const uint8_t *bits, uint64_t hash, int shift) {
    uint64_t slot = hash >> shift;
    return bits[slot >> 3] >> (slot & 7) & 1;
}

/* Fold a text; returns how many codes are kept, or -1. Notes where lines begin. */
static Py_ssize_t fold(const Index *index, Buffers *own, Py_ssize_t length, Py_ssize_t *lines) {
    Py_ssize_t kept = 0, begun = 0;
    own->lines[begun++] = 0;
    for (Py_ssize_t at = 0; at < length; at++) {
        Py_UCS4 character = own->text[at];
        uint32_t code = index->table[character];
        own->codes[kept] = code;
        kept += code != 0;
        if (character == '\n') own->lines[begun++] = (uint32_t)kept;
    }
    *lines = begun;
    return check_codes(own->codes, kept) < 0 ? -1 : kept;
}

static inline long weight_of(const Index *index, uint32_t code) { return code >= index->wide ? index->wide_weight : 1; }

/* Whether n-grams of the index follow each other over enough weight. */
static int has_span(const Index *index, const Buffers *own, Py_ssize_t count) {
    const uint8_t *other = index->bits + (UINT64_C(1) << (64 - index->shift)) / 8;
    Py_ssize_t last = -2;
    long weight = 0;
    int counts = 0;
    for (Py_ssize_t at = 0; at < count; at++) {
        uint64_t hash = own->hashes[at];
        if (!has_bit(index->bits, hash, index->shift) || !has_bit(other, hash * OTHER, index->shift)) continue;
        Py_ssize_t place = place_of(index->grams, index->gram_count, hash);
        if (place < 0) continue;
        if (last != at - 1) {
            weight = counts = 0;
            for (Py_ssize_t step = 0; step < index->gram - 1; step++) weight += weight_of(index, own->codes[at + step]);
        }
        weight += weight_of(index, own->codes[at + index->gram - 1]);
        counts |= index->counts[place];
        if (counts && weight >= index->least) return 1;
        last = at;
    }
    return 0;
}

static int has_head(const Index *index, const Buffers *own, Py_ssize_t kept, Py_ssize_t lines) {
    if (!index->head_count) return 0;
    for (Py_ssize_t line = 0; line < lines; line++) {
        Py_ssize_t begin = own->lines[line];
        if (begin + index->head > kept) break;
        uint64_t hash;
        rolling_hashes(own->codes + begin, index->head, index->values, index->head, &hash);
        if (place_of(index->heads, index->head_count, hash) >= 0) return 1;
    }
    return 0;
}

static int search(PyObject *text, const Index *index, Buffers *own) {
    Py_ssize_t length = PyUnicode_GetLength(text), lines;
    if (length < 0) return -1;
    if (length >= UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "a text is too long");
        return -1;
    }
    if (make_room(own, length + 1) < 0 || PyUnicode_AsUCS4(text, own->text, length + 1, 0) == NULL) return -1;
    Py_ssize_t kept = fold(index, own, length, &lines);
    if (kept < 0) return -1;
    Py_ssize_t count = rolling_hashes(own->codes, kept, index->values, index->gram, own->hashes);
    return has_span(index, own, count) || has_head(index, own, kept, lines);
}

static int search_all(PyObject *texts, const Index *index, char *found) {
    Buffers own = {0};
    int result = 0;
    for (Py_ssize_t number = 0; number < PyList_Size(texts) && result >= 0; number++) {
        result = search(PyList_GetItem(texts, number), index, &own);
        found[number] = (char)(result > 0);
    }
    PyMem_Free(own.text);
    PyMem_Free(own.codes);
    PyMem_Free(own.hashes);
    PyMem_Free(own.lines);
    return result < 0 ? -1 : 0;
}

PyObject *with_spans(PyObject *module, PyObject *args) {
    PyObject *texts, *table_array, *values_array, *bits_array, *grams_array, *counts_array, *heads_array, *result = NULL;
    Index index;
    int bits;
    unsigned int wide;
    if (!PyArg_ParseTuple(args, "O!OOOinOOnO(Ill)", &PyList_Type, &texts, &table_array, &values_array, &bits_array, &bits,
                          &index.gram, &grams_array, &counts_array, &index.head, &heads_array, &wide, &index.wide_weight,
                          &index.least))
        return NULL;
    if (bits < 3 || bits > 40 || index.gram < 1 || index.head < 1 || index.gram > INT32_MAX || index.head > INT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "no such shape");
        return NULL;
    }
    index.shift = 64 - bits;
    index.wide = wide;
    Py_buffer table, values, rows, grams, counts, heads;
    if (view(table_array, &table, 4, CODE_POINTS, PyBUF_SIMPLE) < 0) return NULL;
    if (view(values_array, &values, 8, CODE_POINTS, PyBUF_SIMPLE) < 0) goto no_values;
    if (view(bits_array, &rows, 1, (Py_ssize_t)(2 * ((UINT64_C(1) << bits) / 8)), PyBUF_SIMPLE) < 0) goto no_rows;
    if (view(grams_array, &grams, 8, 0, PyBUF_SIMPLE) < 0) goto no_grams;
    index.gram_count = grams.len / (Py_ssize_t)sizeof(uint64_t);
    if (view(counts_array, &counts, 1, index.gram_count, PyBUF_SIMPLE) < 0) goto no_counts;
    if (view(heads_array, &heads, 8, 0, PyBUF_SIMPLE) < 0) goto no_heads;
    index.head_count = heads.len / (Py_ssize_t)sizeof(uint64_t);
    index.table = table.buf;
    index.values = values.buf;
    index.bits = rows.buf;
    index.grams = grams.buf;
    index.counts = counts.buf;
    index.heads = heads.buf;
    Py_ssize_t count = PyList_Size(texts);
    char *found = PyMem_Calloc((size_t)count + 1, 1);
    if (found == NULL)
        PyErr_NoMemory();
    else if (search_all(texts, &index, found) == 0)
        result = PyBytes_FromStringAndSize(found, count);
    PyMem_Free(found);
    PyBuffer_Release(&heads);
no_heads:
    PyBuffer_Release(&counts);
no_counts:
    PyBuffer_Release(&grams);
no_grams:
    PyBuffer_Release(&rows);
no_rows:
    PyBuffer_Release(&values);
no_values:
    PyBuffer_Release(&table);
    return result;
}
