/* Ranges of a file, one after another in memory.
 *
 * In: a file descriptor, where ranges begin and how long they are, in items of four bytes, and an array. Out: the array,
 * filled. Linux maps 64 KiB of a file for each range that is looked at, however short it is.
 */
#include "_kernels.h"

#include <errno.h>
#include <unistd.h>

static int gather_all(int file, const int64_t *offsets, const int64_t *sizes, Py_ssize_t ranges, char *out,
                      int64_t room) {
    for (Py_ssize_t range = 0; range < ranges; range++) {
        if (sizes[range] < 0 || sizes[range] > room || offsets[range] < 0) {
            PyErr_SetString(PyExc_ValueError, "no such range");
            return -1;
        }
        room -= sizes[range];
        off_t at = (off_t)offsets[range] * 4;
        size_t left = (size_t)sizes[range] * 4;
        while (left) {
            ssize_t got = pread(file, out, left, at);
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) {
                PyErr_SetFromErrno(PyExc_OSError);
                return -1;
            }
            if (!got) {
                PyErr_SetString(PyExc_EOFError, "a range beyond the end of the file");
                return -1;
            }
            out += got;
            at += got;
            left -= (size_t)got;
        }
    }
    return 0;
}

PyObject *gather(PyObject *module, PyObject *args) {
    PyObject *offsets_array, *sizes_array, *out_array, *result = NULL;
    int file;
    Py_ssize_t ranges;
    if (!PyArg_ParseTuple(args, "iOOnO", &file, &offsets_array, &sizes_array, &ranges, &out_array)) return NULL;
    if (ranges < 0) {
        PyErr_SetString(PyExc_ValueError, "no such shape");
        return NULL;
    }
    Py_buffer offsets, sizes, out;
    if (view(offsets_array, &offsets, 8, ranges, PyBUF_SIMPLE) < 0) return NULL;
    if (view(sizes_array, &sizes, 8, ranges, PyBUF_SIMPLE) < 0) goto no_sizes;
    if (view(out_array, &out, 4, 0, PyBUF_WRITABLE) < 0) goto no_out;
    if (gather_all(file, offsets.buf, sizes.buf, ranges, out.buf, (int64_t)(out.len / 4)) == 0) result = Py_NewRef(Py_None);
    PyBuffer_Release(&out);
no_out:
    PyBuffer_Release(&sizes);
no_sizes:
    PyBuffer_Release(&offsets);
    return result;
}
