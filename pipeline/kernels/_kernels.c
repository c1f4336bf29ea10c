/* Loops over characters that numpy can only run as a dozen passes.
 *
 * Each function gives the result of the same step in Python, which is the reference and runs without a compiler; tests
 * compare both. In: strings, and numpy's tables by the buffer protocol. Out: new strings, lists, and numbers written
 * into arrays. Only the stable ABI of Python 3.11 is used. Every index is bounded by a length taken here, and the length
 * of every table is checked. Each loop is linear in any text: lookahead is bounded, or ends where the next one begins.
 */
#include "_kernels.h"

#define SEAM 0x1e

/* ---- strings as code points ---- */

typedef struct {
    Py_UCS4 *codes;
    Py_ssize_t length;
    Py_ssize_t room;
} Text;

/* Copy a string into a growing buffer, with `before` free places in front of it and one behind it. */
static int load(Text *text, PyObject *string, Py_ssize_t before) {
    Py_ssize_t length = PyUnicode_GetLength(string);
    if (length < 0) return -1;
    if (length + before + 1 > text->room) {
        Py_ssize_t room = length + before + 1 + (length >> 2);
        Py_UCS4 *codes = PyMem_Realloc(text->codes, (size_t)room * sizeof(Py_UCS4));
        if (codes == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        text->codes = codes;
        text->room = room;
    }
    text->length = length;
    return length && PyUnicode_AsUCS4(string, text->codes + before, length, 0) == NULL ? -1 : 0;
}

static PyObject *string_of(const Py_UCS4 *codes, Py_ssize_t length) {
    const union {
        uint16_t word;
        char first;
    } probe = {1};
    int order = probe.first ? -1 : 1;
    return PyUnicode_DecodeUTF32((const char *)codes, length * (Py_ssize_t)sizeof(Py_UCS4), "surrogatepass", &order);
}

/* ---- numbers returned as bytes ---- */

typedef struct {
    uint64_t *items;
    Py_ssize_t length;
    Py_ssize_t room;
} Numbers;

static int add(Numbers *numbers, uint64_t item) {
    if (numbers->length == numbers->room) {
        Py_ssize_t room = numbers->room ? 2 * numbers->room : 256;
        uint64_t *items = PyMem_Realloc(numbers->items, (size_t)room * sizeof(uint64_t));
        if (items == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        numbers->items = items;
        numbers->room = room;
    }
    numbers->items[numbers->length++] = item;
    return 0;
}

static PyObject *bytes_of(const Numbers *numbers) {
    return PyBytes_FromStringAndSize((const char *)numbers->items,
                                     numbers->length * (Py_ssize_t)sizeof(uint64_t));
}

/* ---- cleaning: which rules a text triggers ---- */

#define KIND_SHIFT 29
#define KIND_SEAM 3

static PyObject *called(PyObject *module, PyObject *args) {
    PyObject *texts, *flags_array, *pairs_array, *found = NULL;
    unsigned int invisible, lines;
    if (!PyArg_ParseTuple(args, "O!OOII", &PyList_Type, &texts, &flags_array, &pairs_array, &invisible, &lines))
        return NULL;
    Py_buffer flags_view, pairs_view;
    if (view(flags_array, &flags_view, 4, CODE_POINTS, PyBUF_SIMPLE) < 0) return NULL;
    if (view(pairs_array, &pairs_view, 4, 64, PyBUF_SIMPLE) < 0) {
        PyBuffer_Release(&flags_view);
        return NULL;
    }
    const uint32_t *flags = flags_view.buf, *pairs = pairs_view.buf;
    Text text = {0};
    Py_ssize_t count = PyList_Size(texts);
    found = PyList_New(count);
    for (Py_ssize_t index = 0; found != NULL && index < count; index++) {
        PyObject *bits_object = NULL;
        if (load(&text, PyList_GetItem(texts, index), 0) == 0) {
            text.codes[text.length] = SEAM;
            unsigned int bits = 0, before = KIND_SEAM, newlines = 0;
            for (Py_ssize_t place = 0; place <= text.length; place++) {
                Py_UCS4 code = text.codes[place];
                unsigned int flag = flags[code], kind = flag >> KIND_SHIFT;
                bits |= flag;
                if (kind | before) {
                    bits |= pairs[before << 3 | kind];
                    newlines = code == '\n' ? newlines + 1 : 0;
                    if (newlines == 3) bits |= lines;
                    if (code == SEAM && place < text.length) bits |= invisible;
                }
                before = kind;
            }
            bits_object = PyLong_FromUnsignedLong(bits & ((1u << KIND_SHIFT) - 1));
        }
        if (bits_object == NULL || PyList_SetItem(found, index, bits_object) < 0) Py_CLEAR(found);
    }
    PyMem_Free(text.codes);
    PyBuffer_Release(&flags_view);
    PyBuffer_Release(&pairs_view);
    return found;
}

/* ---- cleaning: tags ---- */

#define ENTRY 12 /* bytes of an entry in the table of tags: the name, padded with zeros, and the kind of replacement */
#define LONGEST_NAME (ENTRY - 1)
#define UNSURE (-2) /* a letter left to Python */

static int is_gap(Py_UCS4 code) { return code == ' ' || (code >= '\t' && code <= '\r'); }

static int is_letter(Py_UCS4 code) { return (code | 0x20) >= 'a' && (code | 0x20) <= 'z' && code < 0x80; }

static int is_digit(Py_UCS4 code) { return code >= '0' && code <= '9'; }

static const uint8_t *tag_of(const Py_UCS4 *name, Py_ssize_t length, const uint8_t *tags, Py_ssize_t count) {
    uint8_t key[LONGEST_NAME] = {0};
    for (Py_ssize_t at = 0; at < length; at++) key[at] = (uint8_t)name[at];
    Py_ssize_t low = 0, high = count;
    while (low < high) {
        Py_ssize_t middle = (low + high) / 2;
        int order = memcmp(key, tags + middle * ENTRY, LONGEST_NAME);
        if (order == 0) return tags + middle * ENTRY;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* The end of a comment whose `<!--` ends at `place`, or -1. */
static Py_ssize_t comment_end(const Py_UCS4 *codes, Py_ssize_t place, Py_ssize_t length) {
    for (Py_ssize_t far = 0; far <= 4000 && place + far + 2 < length; far++) {
        const Py_UCS4 *at = codes + place + far;
        if (at[0] == '-' && at[1] == '-' && at[2] == '>') return place + far + 3;
        if (at[0] == SEAM) return -1;
        if (at[0] == '<' && place + far + 3 < length && at[1] == '!' && at[2] == '-' && at[3] == '-') return -1;
    }
    return -1;
}

/* Attributes that need no value. */
static const char *const LONE[] = {"allowfullscreen", "async",    "autoplay", "checked", "compact", "controls",
                                   "defer",           "disabled", "hidden",   "loop",    "muted",   "noshade",
                                   "nowrap",          "open",     "reversed", "selected", NULL};

/* The end of a lower-case word, matched in any case; -1 if it does not match, UNSURE for a letter that Python's re
 * equates with i, s or k. */
static Py_ssize_t word_end(const Py_UCS4 *codes, Py_ssize_t place, Py_ssize_t length, const char *word) {
    for (; *word; word++, place++) {
        if (place == length) return -1;
        Py_UCS4 code = codes[place];
        if (code == 0x130 || code == 0x131 || code == 0x17f || code == 0x212a) return UNSURE;
        if (!is_letter(code) || (char)(code | 0x20) != *word) return -1;
    }
    return place;
}

static Py_ssize_t any_word_end(const Py_UCS4 *codes, Py_ssize_t place, Py_ssize_t length, const char *const *words) {
    for (; *words; words++) {
        Py_ssize_t end = word_end(codes, place, length, *words);
        if (end != -1) return end;
    }
    return -1;
}

#define IS_WORD 1 /* bits in the table of characters */
#define IS_SPACE 2

static Py_ssize_t quoted_end(const Py_UCS4 *codes, Py_ssize_t place, Py_ssize_t length) {
    Py_UCS4 quote = codes[place++];
    for (Py_ssize_t far = 0; place < length; place++, far++) {
        Py_UCS4 code = codes[place];
        if (code == quote) return place + 1;
        if (code == '<' || code == '>' || code == SEAM || far == 2000) return -1;
    }
    return -1;
}

/* The end of one attribute with the gap before it; -1 if there is no attribute. */
static Py_ssize_t attribute_end(const Py_UCS4 *codes, Py_ssize_t place, Py_ssize_t length, const uint8_t *kinds) {
    Py_ssize_t begin = place;
    while (place < length && is_gap(codes[place])) place++;
    if (place == begin || place == length) return -1;
    begin = place;
    if (is_letter(codes[place]) || codes[place] == '_' || codes[place] == ':' || codes[place] == '@') {
        place++;
        for (int far = 0; far < 60 && place < length; far++, place++) {
            Py_UCS4 code = codes[place];
            if (code >= BASIC_PLANE) return UNSURE;
            if (!(kinds[code] & IS_WORD) && code != ':' && code != '.' && code != '-') break;
        }
        while (place < length && is_gap(codes[place])) place++;
        if (place < length && codes[place] == '=') {
            place++;
            while (place < length && is_gap(codes[place])) place++;
            if (place < length && (codes[place] == '"' || codes[place] == '\'')) {
                Py_ssize_t end = quoted_end(codes, place, length);
                if (end >= 0) return end;
            }
            for (int far = 0; far < 2000 && place < length; far++, place++) {
                Py_UCS4 code = codes[place];
                if (code == '<' || code == '>' || code == SEAM) break;
                if (code < BASIC_PLANE && kinds[code] & IS_SPACE) break;
            }
            return place;
        }
    }
    return any_word_end(codes, begin, length, LONE);
}

/* The end of a tag whose `<` is at `place`, or -1; `entry` is NULL for a comment. */
static Py_ssize_t tag_end(const Py_UCS4 *codes, Py_ssize_t place, Py_ssize_t length, const uint8_t *tags,
                          Py_ssize_t count, const uint8_t *kinds, const uint8_t **entry, int *closing) {
    place++;
    *entry = NULL;
    *closing = 0;
    if (place + 2 < length && codes[place] == '!' && codes[place + 1] == '-' && codes[place + 2] == '-')
        return comment_end(codes, place + 3, length);
    if (place < length && codes[place] == '/') {
        *closing = 1;
        place++;
    }
    Py_ssize_t name = place;
    while (place < length && (is_letter(codes[place]) || is_digit(codes[place]))) {
        if (place - name == LONGEST_NAME) return -1;
        place++;
    }
    if (place == name || place == length || (*entry = tag_of(codes + name, place - name, tags, count)) == NULL)
        return -1;
    for (int attributes = 0; attributes < 40; attributes++) {
        Py_ssize_t end = attribute_end(codes, place, length, kinds);
        if (end == UNSURE) return UNSURE;
        if (end < 0) break;
        place = end;
    }
    for (int gaps = 0; gaps < 20 && place < length && is_gap(codes[place]); gaps++) place++;
    if (place < length && codes[place] == '/') place++;
    return place < length && codes[place] == '>' ? place + 1 : -1;
}

/* The replacement of a tag, by the last byte of its entry. */
enum { NOTHING, NEWLINE, READING, SUPERSCRIPT, GENERIC_NOTHING, GENERIC_NEWLINE };

static int is_fence(const Py_UCS4 *codes, Py_ssize_t place, Py_ssize_t length) {
    return place + 2 < length && codes[place] == '`' && codes[place + 1] == '`' && codes[place + 2] == '`';
}

/* Tags with invisible contents: a text with the end of one is left to Python, which removes the contents. */
static const char *const UNSEEN[] = {"script", "style", "rp", NULL};

/* The end of code in backticks that begins at `place`, or -1. */
static Py_ssize_t code_end(const Py_UCS4 *codes, Py_ssize_t place, Py_ssize_t length) {
    Py_ssize_t at = place + 1;
    if (is_fence(codes, place, length)) {
        for (at += 2; at < length && codes[at] != SEAM; at++)
            if (is_fence(codes, at, length)) return at + 3;
        return -1;
    }
    while (at < length && codes[at] != '`' && codes[at] != '\n' && codes[at] != SEAM) at++;
    return at < length && codes[at] == '`' && at > place + 1 ? at + 1 : -1;
}

typedef struct {
    const uint8_t *tags;
    Py_ssize_t count;
    const uint8_t *kinds;
} Tags;

/* One text without tags; None if it is left to Python. */
static PyObject *without_tags(PyObject *string, Text *text, const Tags *known) {
    if (load(text, string, 0) < 0) return NULL;
    Py_UCS4 *codes = text->codes;
    Py_ssize_t length = text->length;
    for (Py_ssize_t place = 0; place + 1 < length; place++) /* also in code and comments */
        if (codes[place] == '<' && codes[place + 1] == '/' && any_word_end(codes, place + 2, length, UNSEEN) != -1)
            return Py_NewRef(Py_None);
    Py_ssize_t out = 0; /* kept characters move down; unread ones are not overwritten */
    Py_UCS4 before = 0;
    for (Py_ssize_t place = 0; place < length;) {
        Py_UCS4 code = codes[place];
        Py_ssize_t end = -1;
        if (code == '`') {
            end = code_end(codes, place, length);
            if (end >= 0) {
                memmove(codes + out, codes + place, (size_t)(end - place) * sizeof(Py_UCS4));
                out += end - place;
            }
        } else if (code == '<') {
            const uint8_t *entry;
            int closing;
            end = tag_end(codes, place, length, known->tags, known->count, known->kinds, &entry, &closing);
            if (end == UNSURE) return Py_NewRef(Py_None);
            if (end >= 0) {
                int after_letter = is_letter(before) || is_digit(before);
                int leaves = entry ? entry[LONGEST_NAME] : NOTHING;
                if (leaves >= GENERIC_NOTHING && !closing && after_letter) { /* `Class<S>` */
                    memmove(codes + out, codes + place, (size_t)(end - place) * sizeof(Py_UCS4));
                    out += end - place;
                } else if (leaves == NEWLINE || leaves == GENERIC_NEWLINE) {
                    codes[out++] = '\n';
                } else if (leaves == READING) {
                    codes[out++] = closing ? 0xff09 : 0xff08;
                } else if (leaves == SUPERSCRIPT && !closing && (after_letter || before == ')')) {
                    codes[out++] = '^';
                }
            }
        }
        if (end >= 0) {
            before = 0;
            place = end;
        } else {
            codes[out++] = before = code;
            place++;
        }
    }
    return out == length ? Py_NewRef(string) : string_of(codes, out);
}

static PyObject *strip_tags(PyObject *module, PyObject *args) {
    PyObject *texts, *tags_array, *kinds_array, *stripped;
    if (!PyArg_ParseTuple(args, "O!OO", &PyList_Type, &texts, &tags_array, &kinds_array)) return NULL;
    Py_buffer tags_view, kinds_view;
    if (view(tags_array, &tags_view, ENTRY, 0, PyBUF_SIMPLE) < 0) return NULL;
    if (view(kinds_array, &kinds_view, 1, BASIC_PLANE, PyBUF_SIMPLE) < 0) {
        PyBuffer_Release(&tags_view);
        return NULL;
    }
    const Tags known = {tags_view.buf, tags_view.len / ENTRY, kinds_view.buf};
    Text text = {0};
    Py_ssize_t count = PyList_Size(texts);
    stripped = PyList_New(count);
    for (Py_ssize_t index = 0; stripped != NULL && index < count; index++) {
        PyObject *one = without_tags(PyList_GetItem(texts, index), &text, &known);
        if (one == NULL || PyList_SetItem(stripped, index, one) < 0) Py_CLEAR(stripped);
    }
    PyMem_Free(text.codes);
    PyBuffer_Release(&tags_view);
    PyBuffer_Release(&kinds_view);
    return stripped;
}

/* ---- cleaning: blanks ---- */

static int is_blank(Py_UCS4 code) {
    if (code < 0x80) return code == ' ' || code == '\t';
    if (code == 0xa0 || code == 0x3000) return 1;
    return (code >= 0x2000 && code <= 0x200a) || code == 0x202f || code == 0x205f || code == 0x1680;
}

static PyObject *with_single_blanks(PyObject *string, Text *text) {
    if (load(text, string, 1) < 0) return NULL;
    Py_UCS4 *codes = text->codes + 1; /* with a seam on either side */
    Py_ssize_t length = text->length, out = 0, code_ends = 0; /* kept characters move down */
    codes[-1] = codes[length] = SEAM;
    int changed = 0;
    Py_UCS4 before = SEAM;
    for (Py_ssize_t place = 0; place < length;) {
        Py_UCS4 code = codes[place];
        if (!is_blank(code)) {
            if (code == '`' && place >= code_ends && is_fence(codes, place, length)) {
                Py_ssize_t end = place + 3;
                while (end < length && !is_fence(codes, end, length)) end++;
                code_ends = end < length ? end + 3 : place + 1; /* a fence that is not closed is not code */
            }
            codes[out++] = before = code;
            place++;
            continue;
        }
        Py_ssize_t end = place;
        int odd = 0;
        while (is_blank(codes[end])) odd |= codes[end++] >= 0x80;
        int in_code = place < code_ends;
        Py_UCS4 next = codes[end];
        int lone = end - place == 1 && code == ' ';
        int after_break = before == '\n' || before == SEAM;
        int indent = after_break && (lone || !odd);
        int gone = next == '\n' || (!indent && !in_code && (after_break || (next == SEAM && !lone)));
        int kept = !gone && !(in_code && odd) && (in_code || indent || lone);
        changed |= !kept;
        if (kept) {
            for (; place < end; place++) codes[out++] = codes[place];
        } else if (!gone && in_code) {
            for (; place < end; place++) codes[out++] = codes[place] == '\t' ? '\t' : ' ';
        } else if (!gone) {
            codes[out++] = ' ';
        }
        place = end;
    }
    return changed ? string_of(codes, out) : Py_NewRef(string);
}

static PyObject *collapse_blanks(PyObject *module, PyObject *texts) {
    if (!PyList_Check(texts)) {
        PyErr_SetString(PyExc_TypeError, "texts must be a list");
        return NULL;
    }
    Text text = {0};
    Py_ssize_t count = PyList_Size(texts);
    PyObject *collapsed = PyList_New(count);
    for (Py_ssize_t index = 0; collapsed != NULL && index < count; index++) {
        PyObject *one = with_single_blanks(PyList_GetItem(texts, index), &text);
        if (one == NULL || PyList_SetItem(collapsed, index, one) < 0) Py_CLEAR(collapsed);
    }
    PyMem_Free(text.codes);
    return collapsed;
}

/* ---- cleaning: normal form ---- */

/* Whether at least so many adjacent characters are neither Latin nor Han, as in a long run of marks. */
static PyObject *has_run(PyObject *module, PyObject *args) {
    PyObject *string, *answer = NULL;
    Py_ssize_t least, run = 0;
    if (!PyArg_ParseTuple(args, "Un", &string, &least)) return NULL;
    Text text = {0};
    if (load(&text, string, 0) == 0) {
        Py_ssize_t place = 0;
        for (; place < text.length && run < least; place++) {
            Py_UCS4 code = text.codes[place];
            run = code < 0x300 || (code >= 0x3400 && code <= 0x9fff) ? 0 : run + 1;
        }
        answer = PyBool_FromLong(run >= least);
    }
    PyMem_Free(text.codes);
    return answer;
}

/* ---- personal data: candidate positions ---- */

enum { ALNUM = 1, BLANK = 2, WORD_BEGIN = 4, DIGIT = 8, DOT = 16, COLON = 32, AT = 64, WORD_END = 128 };

/* The first of every three consecutive places with gaps of at most `apart`. */
typedef struct {
    Py_ssize_t places[2];
    int count;
} Row;

static Py_ssize_t first_of_three(Row *row, Py_ssize_t place, Py_ssize_t apart) {
    Py_ssize_t first = -1;
    if (row->count && place - row->places[1] > apart) row->count = 0;
    if (row->count == 2) first = row->places[0];
    row->places[0] = row->places[1];
    row->places[1] = place;
    if (row->count < 2) row->count++;
    return first;
}

static PyObject *spots(PyObject *module, PyObject *args) {
    PyObject *string, *table_array, *found = NULL;
    if (!PyArg_ParseTuple(args, "UO", &string, &table_array)) return NULL;
    Py_buffer table_view;
    if (view(table_array, &table_view, 1, CODE_POINTS, PyBUF_SIMPLE) < 0) return NULL;
    const uint8_t *table = table_view.buf;
    Text text = {0};
    Numbers numbers = {0}, ats = {0}, words = {0}, addresses = {0};
    if (load(&text, string, 0) < 0) goto done;
    const Py_UCS4 *codes = text.codes;
    Row dots = {{0}, 0}, colons = {{0}, 0};
    for (Py_ssize_t place = 1; place + 1 < text.length; place++) { /* there is a seam at both ends */
        unsigned int mark = table[codes[place]];
        if (mark < DIGIT) continue;
        unsigned int last = table[codes[place - 1]], next = table[codes[place + 1]];
        int bad = 0;
        if (mark & DIGIT) {
            Py_ssize_t end = place + 1;
            while (end < text.length && table[codes[end]] & DIGIT) end++;
            int worthy = end - place > 4;
            if (end - place == 4 && end + 4 < text.length && table[codes[end]] & BLANK)
                worthy = (table[codes[end + 1]] & DIGIT) && (table[codes[end + 2]] & DIGIT) &&
                         (table[codes[end + 3]] & DIGIT) && (table[codes[end + 4]] & DIGIT);
            if (worthy) bad |= add(&numbers, (uint64_t)place);
            place = end - 1;
        }
        if (mark & DOT && last & DIGIT && next & DIGIT) {
            Py_ssize_t first = first_of_three(&dots, place, 4);
            if (first >= 0) bad |= add(&addresses, (uint64_t)first);
        }
        if (mark & COLON) {
            Py_ssize_t first = first_of_three(&colons, place, 5);
            if (first >= 0) bad |= add(&addresses, (uint64_t)first);
        }
        if (mark & AT && last & ALNUM && next & ALNUM) bad |= add(&ats, (uint64_t)place);
        if (mark & WORD_END && last & WORD_BEGIN) bad |= add(&words, (uint64_t)place);
        if (bad) goto done;
    }
    found = Py_BuildValue("(NNNN)", bytes_of(&numbers), bytes_of(&ats), bytes_of(&words), bytes_of(&addresses));
done:
    PyMem_Free(text.codes);
    PyMem_Free(numbers.items);
    PyMem_Free(ats.items);
    PyMem_Free(words.items);
    PyMem_Free(addresses.items);
    PyBuffer_Release(&table_view);
    return found;
}

/* ---- filter rules: counts ---- */

/* The addend of a character, by its class: four counts of 16 bits in one sum. */
#define BLANK_CLASS 4
#define FIELD_HAN 1u
#define FIELD_SIGN (1u << 16)
#define FIELD_BLANK ((uint64_t)1 << 32)
#define FIELD_LOST ((uint64_t)1 << 48)
static const uint64_t FIELDS[8] = {0, FIELD_HAN, FIELD_SIGN, FIELD_SIGN, FIELD_BLANK, FIELD_HAN | FIELD_LOST, FIELD_LOST, 0};
#define FIELD_PART ((Py_ssize_t)1 << 15) /* characters; their counts do not overflow into the next field */

enum { LENGTH, HANS, SIGNS, BLANKS, LOSTS, RUNS, LINES, BEGUN, DIFFERENT, SAMPLED, COLUMNS };

#define FACTOR_FIRST 0x9E3779B1u
#define FACTOR_SECOND 0x85EBCA77u
#define HASH_BASE 0x9E3779B97F4A7C15u
#define HASH_BITS 40

static uint64_t key_of(Py_ssize_t owner, uint64_t hash) {
    return (uint64_t)owner << HASH_BITS | hash >> (64 - HASH_BITS);
}

static PyObject *count(PyObject *module, PyObject *args) {
    PyObject *texts, *classes_array, *beginnings_array, *table_array, *found = NULL;
    Py_ssize_t longest, span, sampled_from, fewest_lines, most_lines;
    unsigned int limit;
    if (!PyArg_ParseTuple(args, "O!OOOnnnInn", &PyList_Type, &texts, &classes_array, &beginnings_array, &table_array,
                          &longest, &span, &sampled_from, &limit, &fewest_lines, &most_lines))
        return NULL;
    Py_buffer classes_view, beginnings_view, table_view;
    Py_ssize_t count = PyList_Size(texts);
    if (view(classes_array, &classes_view, 1, CODE_POINTS, PyBUF_SIMPLE) < 0) return NULL;
    if (view(beginnings_array, &beginnings_view, 1, 1 << 16, PyBUF_SIMPLE) < 0) {
        PyBuffer_Release(&classes_view);
        return NULL;
    }
    if (view(table_array, &table_view, 8, count * COLUMNS, PyBUF_WRITABLE) < 0) {
        PyBuffer_Release(&classes_view);
        PyBuffer_Release(&beginnings_view);
        return NULL;
    }
    const uint8_t *classes = classes_view.buf, *beginnings = beginnings_view.buf;
    int64_t *table = table_view.buf;
    Text text = {0};
    Numbers spans = {0}, lines = {0}, lengths = {0};
    for (Py_ssize_t index = 0; index < count; index++) {
        if (load(&text, PyList_GetItem(texts, index), 0) < 0) goto done;
        const Py_UCS4 *codes = text.codes;
        Py_ssize_t length = text.length;
        text.codes[length] = '\n'; /* as in the reference, which joins texts */
        int64_t *row = table + index * COLUMNS, counts[4] = {0}, runs = 0, begun = 0, newlines = 0, sampled = 0;
        uint32_t ended = '\n' * FACTOR_FIRST;
        uint64_t bits[2] = {0};
        bits[ended >> 31] = (uint64_t)1 << (ended >> 25 & 63);
        int is_long = length >= sampled_from;
        for (Py_ssize_t part = 0; part < length; part += FIELD_PART) {
            Py_ssize_t end = length - part < FIELD_PART ? length : part + FIELD_PART;
            uint64_t sum = 0;
            for (Py_ssize_t place = part; place < end; place++) {
                Py_UCS4 code = codes[place], next = codes[place + 1];
                unsigned int class = classes[code];
                sum += FIELDS[class & 7];
                runs += (code == next) & (class != BLANK_CLASS);
                newlines += code == '\n';
                uint32_t first = code * FACTOR_FIRST, pair = first + next * FACTOR_SECOND;
                if (length <= longest) begun += beginnings[pair >> 16] & (place + 1 < length);
                if (!is_long) {
                    bits[first >> 31] |= (uint64_t)1 << (first >> 25 & 63);
                } else if (pair < limit && place + span <= length) {
                    uint64_t hash = 0;
                    for (Py_ssize_t at = place; at < place + span; at++) hash = (hash + codes[at]) * HASH_BASE;
                    if (add(&spans, key_of(index, hash)) < 0) goto done;
                    sampled++;
                }
            }
            for (int field = 0; field < 4; field++, sum >>= 16) counts[field] += sum & 0xffff;
        }
        if (newlines + 1 >= fewest_lines && newlines < most_lines) {
            for (Py_ssize_t start = 0, end = 0; end <= length; end++) {
                if (codes[end] != '\n') continue;
                Py_ssize_t wide = end - start;
                uint64_t hash = (uint64_t)wide;
                hash = (hash + codes[start]) * HASH_BASE;
                hash = (hash + codes[start + wide / 3]) * HASH_BASE;
                hash = (hash + codes[start + 2 * wide / 3]) * HASH_BASE;
                hash = (hash + codes[end - (wide > 0)]) * HASH_BASE;
                if (add(&lines, key_of(index, hash)) < 0 || add(&lengths, (uint64_t)wide) < 0) goto done;
                start = end + 1;
            }
        }
        row[LENGTH] = length;
        row[HANS] = counts[0];
        row[SIGNS] = counts[1];
        row[BLANKS] = counts[2];
        row[LOSTS] = counts[3];
        row[RUNS] = runs;
        row[LINES] = newlines + 1;
        row[BEGUN] = begun;
        int64_t different = 0;
        for (int half = 0; half < 2; half++)
            for (uint64_t left = bits[half]; left; left &= left - 1) different++;
        row[DIFFERENT] = is_long ? 0 : different;
        row[SAMPLED] = sampled;
    }
    found = Py_BuildValue("(NNN)", bytes_of(&spans), bytes_of(&lines), bytes_of(&lengths));
done:
    PyMem_Free(text.codes);
    PyMem_Free(spans.items);
    PyMem_Free(lines.items);
    PyMem_Free(lengths.items);
    PyBuffer_Release(&classes_view);
    PyBuffer_Release(&beginnings_view);
    PyBuffer_Release(&table_view);
    return found;
}

/* ---- records: their fields ---- */

/* Colons after the end of a string, with or without blanks in between: at least the number of keys. */
static Py_ssize_t count_keys(const char *raw, Py_ssize_t length) {
    Py_ssize_t found = 0;
    const char *end = raw + length;
    for (const char *at = raw; (at = memchr(at, ':', (size_t)(end - at))) != NULL; at++) {
        const char *quote = at;
        while (quote > raw && (quote[-1] == ' ' || quote[-1] == '\t' || quote[-1] == '\r' || quote[-1] == '\n')) quote--;
        if (quote == raw || *--quote != '"') continue;
        const char *escape = quote;
        while (escape > raw && escape[-1] == '\\') escape--;
        found += (quote - escape) % 2 == 0;
    }
    return found;
}

static PyObject *keys(PyObject *module, PyObject *record) {
    char *raw;
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(record, &raw, &length) < 0) return NULL;
    return PyLong_FromSsize_t(count_keys(raw, length));
}

#define MOST_PARTS 8

typedef struct {
    PyObject *loads, *dumps;
    PyObject *strict, *types; /* tuples: required fields and their types */
    PyObject *parts;          /* tuple: the fields of the text */
    PyObject *ids;            /* tuple: the fields of the name */
    PyObject *lists[4];       /* names, texts, metas, raws */
} Shape;

/* The name of a record: its id as a string, or several joined by hyphens. */
static PyObject *name_of(PyObject *record, PyObject *ids) {
    Py_ssize_t count = PyTuple_Size(ids);
    PyObject *names = PyList_New(0), *hyphen = NULL, *name = NULL;
    for (Py_ssize_t index = 0; names != NULL && index < count; index++) {
        PyObject *value = PyDict_GetItemWithError(record, PyTuple_GetItem(ids, index));
        if (value == NULL && !PyErr_Occurred()) PyErr_SetString(PyExc_KeyError, "a record without its id");
        PyObject *one = value ? PyObject_Str(value) : NULL;
        if (one == NULL || PyList_Append(names, one) < 0) {
            Py_XDECREF(one);
            Py_DECREF(names);
            return NULL;
        }
        Py_DECREF(one);
    }
    if (names != NULL && (hyphen = PyUnicode_FromString("-")) != NULL) name = PyUnicode_Join(hyphen, names);
    Py_XDECREF(hyphen);
    Py_XDECREF(names);
    return name;
}

/* Parse a record into the lists: 1 if done, 0 if it is left to Python, -1 for an error. */
static int add_record(PyObject *raw, const Shape *shape) {
    char *bytes;
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(raw, &bytes, &length) < 0) return -1;
    PyObject *record = PyObject_CallFunctionObjArgs(shape->loads, raw, NULL);
    if (record == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_ValueError)) return -1;
        PyErr_Clear();
        return 0;
    }
    int result = 0;
    PyObject *texts[MOST_PARTS] = {NULL}, *dumped = NULL, *meta = NULL, *name = NULL;
    Py_ssize_t part_count = PyTuple_Size(shape->parts), strict_count = PyTuple_Size(shape->strict);
    if (!PyDict_CheckExact(record) || count_keys(bytes, length) > PyDict_Size(record)) goto done;
    for (Py_ssize_t index = 0; index < strict_count; index++) {
        PyObject *value = PyDict_GetItemWithError(record, PyTuple_GetItem(shape->strict, index));
        if (value == NULL || (PyObject *)Py_TYPE(value) != PyTuple_GetItem(shape->types, index)) goto done;
    }
    for (Py_ssize_t index = 0; index < part_count; index++) {
        PyObject *part = PyTuple_GetItem(shape->parts, index);
        texts[index] = Py_XNewRef(PyDict_GetItemWithError(record, part));
        if (texts[index] == NULL || !PyUnicode_CheckExact(texts[index]) || PyDict_DelItem(record, part) < 0) goto done;
    }
    dumped = PyObject_CallFunctionObjArgs(shape->dumps, record, NULL);
    if (dumped == NULL) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Clear();
        else
            result = -1;
        goto done;
    }
    result = -1;
    if (PyBytes_AsStringAndSize(dumped, &bytes, &length) < 0) goto done;
    if ((meta = PyUnicode_DecodeUTF8(bytes, length, NULL)) == NULL) goto done;
    if ((name = name_of(record, shape->ids)) == NULL) goto done;
    for (Py_ssize_t index = 0; index < part_count; index++)
        if (PyList_Append(shape->lists[1], texts[index]) < 0) goto done;
    if (PyList_Append(shape->lists[0], name) < 0 || PyList_Append(shape->lists[2], meta) < 0 ||
        PyList_Append(shape->lists[3], raw) < 0)
        goto done;
    result = 1;
done:
    for (Py_ssize_t index = 0; index < part_count; index++) Py_XDECREF(texts[index]);
    Py_XDECREF(dumped);
    Py_XDECREF(meta);
    Py_XDECREF(name);
    Py_DECREF(record);
    return result;
}

/* Parse records from `from` on, up to the first that is left to Python: its position, or the number of records. */
static PyObject *parse(PyObject *module, PyObject *args) {
    PyObject *records, *offsets;
    Py_ssize_t from;
    Shape shape;
    if (!PyArg_ParseTuple(args, "O!n(OOO!O!O!O!)(O!O!O!O!O!)", &PyList_Type, &records, &from, &shape.loads, &shape.dumps,
                          &PyTuple_Type, &shape.strict, &PyTuple_Type, &shape.types, &PyTuple_Type, &shape.parts,
                          &PyTuple_Type, &shape.ids, &PyList_Type, &offsets, &PyList_Type, &shape.lists[0], &PyList_Type,
                          &shape.lists[1], &PyList_Type, &shape.lists[2], &PyList_Type, &shape.lists[3]))
        return NULL;
    if (from < 0 || PyTuple_Size(shape.parts) > MOST_PARTS || PyTuple_Size(shape.types) != PyTuple_Size(shape.strict)) {
        PyErr_SetString(PyExc_ValueError, "no such shape");
        return NULL;
    }
    for (; from < PyList_Size(records); from++) {
        PyObject *pair = PyList_GetItem(records, from);
        if (!PyTuple_Check(pair) || PyTuple_Size(pair) != 2) {
            PyErr_SetString(PyExc_TypeError, "a record comes with its offset");
            return NULL;
        }
        int added = add_record(PyTuple_GetItem(pair, 1), &shape);
        if (added < 0 || PyErr_Occurred()) return NULL;
        if (!added) break;
        if (PyList_Append(offsets, PyTuple_GetItem(pair, 0)) < 0) return NULL;
    }
    return PyLong_FromSsize_t(from);
}

/* ---- digest of the source ---- */

#ifndef SOURCE_SHA256
#define SOURCE_SHA256 ""
#endif

static PyObject *source(PyObject *module, PyObject *nothing) { return PyUnicode_FromString(SOURCE_SHA256); }

static PyMethodDef METHODS[] = {
    {"called", called, METH_VARARGS, "The rules that texts call for."},
    {"strip_tags", strip_tags, METH_VARARGS, "Texts without tags, or None where only Python knows."},
    {"collapse_blanks", collapse_blanks, METH_O, "Texts with runs of blanks made one."},
    {"has_run", has_run, METH_VARARGS, "Whether a long run of marks may stand in a text."},
    {"spots", spots, METH_VARARGS, "Where in texts personal data may stand."},
    {"count", count, METH_VARARGS, "What the filter's rules count."},
    {"keys", keys, METH_O, "How many keys a record has at most."},
    {"parse", parse, METH_VARARGS, "Records as fields, up to the first that is not as usual."},
    {"vocabulary", vocabulary, METH_VARARGS, "A BPE vocabulary from its merges."},
    {"encode", encode, METH_VARARGS, "The ids of texts."},
    {"signatures", signatures, METH_VARARGS, "Folded codes and MinHash bands of texts."},
    {"shingle_sets", shingle_sets, METH_VARARGS, "Sets of the shingles of texts."},
    {"overlaps", overlaps, METH_VARARGS, "How many numbers pairs of sorted sets share."},
    {"winnow", winnow, METH_VARARGS, "Hashes and positions of the n-grams that are least in a window."},
    {"gram_hashes", gram_hashes, METH_VARARGS, "Hashes of the n-grams that begin in parts of texts."},
    {"gather", gather, METH_VARARGS, "Ranges of a file, one after another."},
    {"with_spans", with_spans, METH_VARARGS, "Which texts may have a span of an index, or a line that begins as in it."},
    {"source", source, METH_NOARGS, "SHA-256 of the source that this was built from."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, "_kernels", "Loops over every character.", 0, METHODS, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModuleDef_Init(&MODULE); }
