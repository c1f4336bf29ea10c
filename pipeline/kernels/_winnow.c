/* Fingerprints of texts by winnowing (Schleimer, Wilkerson and Aiken, 2003), and the hashes of n-grams in parts of texts.
 *
 * In: strings, the table of random values of code points, the length of an n-gram and the n-grams of a window, or where
 * n-grams begin. Out: as bytes, of each text the hash and the position of every n-gram that is the least of a window, and
 * how many a text has; or hashes, written into an array. `dedup.winnowing` has the same in numpy, which is the reference.
 * Cost: linear in the characters, whatever they are: a hash enters the queue once and leaves it once.
 */
#include "_kernels.h"

typedef struct {
    Py_UCS4 *text;
    uint64_t *hashes; /* of the n-grams of one text */
    uint32_t *queue;  /* n-grams of the window that may become its least, ascending by hash and position */
    Py_ssize_t room;
    uint64_t *found;
    uint32_t *places;
    Py_ssize_t used, found_room;
} Winnow;

static int make_room(Winnow *own, Py_ssize_t length) {
    if (length > own->room) {
        if (resized(&own->text, length + 1, sizeof *own->text) < 0 ||
            resized(&own->hashes, length, sizeof *own->hashes) < 0 ||
            resized(&own->queue, length, sizeof *own->queue) < 0)
            return -1;
        own->room = length;
    }
    if (own->used + length > own->found_room) { /* a text has no more fingerprints than characters */
        Py_ssize_t wanted = own->used + (own->used >> 1) + length;
        if (resized(&own->found, wanted, sizeof *own->found) < 0 || resized(&own->places, wanted, sizeof *own->places) < 0)
            return -1;
        own->found_room = wanted;
    }
    return 0;
}

static int hash_grams(const Py_UCS4 *text, Py_ssize_t length, const uint64_t *values, Py_ssize_t gram, uint64_t *hashes) {
    uint64_t highest = 1, hash = 0;
    for (Py_ssize_t at = 0; at < length; at++) {
        if (text[at] >= CODE_POINTS) {
            PyErr_SetString(PyExc_ValueError, "no such code point");
            return -1;
        }
        if (at >= gram) hash -= values[text[at - gram]] * highest;
        hash = hash * ROW_BASE + values[text[at]];
        if (at && at < gram) highest *= ROW_BASE;
        if (at >= gram - 1) hashes[at - gram + 1] = hash;
    }
    return 0;
}

/* Of each window the n-gram whose upper half of the hash is least, the last of those that are equal. */
static void choose(Winnow *own, Py_ssize_t count, Py_ssize_t window) {
    const uint64_t *hashes = own->hashes;
    uint32_t *queue = own->queue, last = UINT32_MAX;
    Py_ssize_t head = 0, tail = 0;
    for (Py_ssize_t at = 0; at < count; at++) {
        while (tail > head && hashes[queue[tail - 1]] >> 32 >= hashes[at] >> 32) tail--;
        queue[tail++] = (uint32_t)at;
        if ((Py_ssize_t)queue[head] + window <= at) head++;
        if (at >= window - 1 && queue[head] != last) {
            last = queue[head];
            own->found[own->used] = hashes[last];
            own->places[own->used++] = last;
        }
    }
}

static int winnow_texts(PyObject *texts, const uint64_t *values, Py_ssize_t gram, Py_ssize_t window, Winnow *own,
                        int64_t *counts) {
    for (Py_ssize_t index = 0; index < PyList_Size(texts); index++) {
        PyObject *text = PyList_GetItem(texts, index);
        Py_ssize_t length = PyUnicode_GetLength(text), before = own->used;
        if (length < 0) return -1;
        if (length >= UINT32_MAX) {
            PyErr_SetString(PyExc_ValueError, "a text is too long");
            return -1;
        }
        counts[index] = 0;
        if (length < gram + window - 1) continue;
        if (make_room(own, length) < 0 || PyUnicode_AsUCS4(text, own->text, length + 1, 0) == NULL ||
            hash_grams(own->text, length, values, gram, own->hashes) < 0)
            return -1;
        choose(own, length - gram + 1, window);
        counts[index] = own->used - before;
    }
    return 0;
}

PyObject *winnow(PyObject *module, PyObject *args) {
    PyObject *texts, *values_array, *result = NULL;
    Py_ssize_t gram, window;
    if (!PyArg_ParseTuple(args, "O!Onn", &PyList_Type, &texts, &values_array, &gram, &window)) return NULL;
    if (gram < 1 || window < 1 || gram > INT32_MAX || window > INT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "no such shape");
        return NULL;
    }
    Py_buffer values;
    if (view(values_array, &values, 8, CODE_POINTS, PyBUF_SIMPLE) < 0) return NULL;
    Py_ssize_t count = PyList_Size(texts);
    Winnow own = {0};
    int64_t *counts = PyMem_Malloc((size_t)(count + 1) * sizeof(int64_t));
    if (counts == NULL)
        PyErr_NoMemory();
    else if (winnow_texts(texts, values.buf, gram, window, &own, counts) == 0)
        result = Py_BuildValue("y#y#y#", own.found ? (char *)own.found : "", own.used * (Py_ssize_t)sizeof(uint64_t),
                               own.places ? (char *)own.places : "", own.used * (Py_ssize_t)sizeof(uint32_t),
                               (char *)counts, count * (Py_ssize_t)sizeof(int64_t));
    PyMem_Free(counts);
    PyMem_Free(own.text);
    PyMem_Free(own.hashes);
    PyMem_Free(own.queue);
    PyMem_Free(own.found);
    PyMem_Free(own.places);
    PyBuffer_Release(&values);
    return result;
}

/* The hashes of the n-grams that begin in parts of texts, part by part; a text is read anew where it is not that of the
 * part before. */
static int hash_parts(PyObject *texts, const uint64_t *values, Py_ssize_t gram, const int64_t *owners,
                      const int64_t *begins, const int64_t *counts, Py_ssize_t parts, Winnow *own, uint64_t *out,
                      Py_ssize_t left) {
    Py_ssize_t last = -1, length = 0;
    for (Py_ssize_t part = 0; part < parts; part++) {
        if (owners[part] < 0 || owners[part] >= PyList_Size(texts)) {
            PyErr_SetString(PyExc_ValueError, "no such text");
            return -1;
        }
        if (owners[part] != last) {
            PyObject *text = PyList_GetItem(texts, (Py_ssize_t)owners[part]);
            if ((length = PyUnicode_GetLength(text)) < 0) return -1;
            if (length >= own->room) {
                if (resized(&own->text, length + 1, sizeof *own->text) < 0) return -1;
                own->room = length + 1;
            }
            if (length && PyUnicode_AsUCS4(text, own->text, own->room, 0) == NULL) return -1;
            last = (Py_ssize_t)owners[part];
        }
        int64_t begin = begins[part], count = counts[part];
        if (begin < 0 || count < 1 || count > left || length < gram || begin > length - gram ||
            count > length - gram - begin + 1) {
            PyErr_SetString(PyExc_ValueError, "a part outside of its text");
            return -1;
        }
        if (hash_grams(own->text + begin, (Py_ssize_t)count + gram - 1, values, gram, out) < 0) return -1;
        out += count;
        left -= (Py_ssize_t)count;
    }
    return 0;
}

PyObject *gram_hashes(PyObject *module, PyObject *args) {
    PyObject *texts, *values_array, *owners_array, *begins_array, *counts_array, *out_array, *result = NULL;
    Py_ssize_t gram, parts, total;
    if (!PyArg_ParseTuple(args, "O!OnOOOnOn", &PyList_Type, &texts, &values_array, &gram, &owners_array, &begins_array,
                          &counts_array, &parts, &out_array, &total))
        return NULL;
    if (gram < 1 || gram > INT32_MAX || parts < 0 || total < 0) {
        PyErr_SetString(PyExc_ValueError, "no such shape");
        return NULL;
    }
    Py_buffer values, owners, begins, counts, out;
    if (view(values_array, &values, 8, CODE_POINTS, PyBUF_SIMPLE) < 0) return NULL;
    if (view(owners_array, &owners, 8, parts, PyBUF_SIMPLE) < 0) goto no_owners;
    if (view(begins_array, &begins, 8, parts, PyBUF_SIMPLE) < 0) goto no_begins;
    if (view(counts_array, &counts, 8, parts, PyBUF_SIMPLE) < 0) goto no_counts;
    if (view(out_array, &out, 8, total, PyBUF_WRITABLE) < 0) goto no_out;
    Winnow own = {0};
    if (hash_parts(texts, values.buf, gram, owners.buf, begins.buf, counts.buf, parts, &own, out.buf, total) == 0)
        result = Py_NewRef(Py_None);
    PyMem_Free(own.text);
    PyBuffer_Release(&out);
no_out:
    PyBuffer_Release(&counts);
no_counts:
    PyBuffer_Release(&begins);
no_begins:
    PyBuffer_Release(&owners);
no_owners:
    PyBuffer_Release(&values);
    return result;
}
