/* Byte-level BPE with the split pattern of GPT-2: texts in, ids out.
 *
 * Method: the encoding of a word is the one in which no two adjacent tokens would have been merged. It is found from
 * left to right by the longest matching token, with backtracking (H. van Antwerpen and A. Neubeck, "So many tokens, so
 * little time", GitHub, 2024). Each place of a word is closed at most once, so time is linear in any word, with a factor
 * that depends only on the vocabulary's longest chain of prefixes; there is no cache. Before that a word is cut between
 * characters that are adjacent in no token, since nothing is merged there.
 * In: merges in order of their rank, the ids of their tokens, the classes of characters. A token's number here is its
 * rank: 0 to 255 for the bytes, then the merges. A vocabulary is refused if two merges make one token, if a token
 * precedes its parts, or if a token is not its own encoding.
 */
#include "_kernels.h"

#define BYTES 256
#define NONE UINT32_MAX
#define MOST_BYTES (1u << 26) /* of all tokens together */
#define MOST_TRIES 4096 /* cells tried for a node's children before the first of them are skipped for all other nodes */
#define FREE UINT32_MAX
#define ROOT (UINT32_MAX - 1)
#define LEFT_OF_CHARACTER 1u  /* a suffix of it, or all, is the left side of a merge with the beginning of a character */
#define RIGHT_OF_CHARACTER 2u /* a prefix of it, or all, is the right side of a merge, and begins a character */
#define WITHIN_CHARACTER 4u   /* it begins within a character */
#define VOCABULARY "corpus.pipeline._kernels.vocabulary"

enum { OTHER, LETTER, NUMBER, SPACE };

/* A token in 64 bits, since tables that fit a core's cache give most of the speed: its parts (a byte is its own), sides,
 * length in bytes. */
#define RANK_BITS 21
#define MOST_TOKENS (1u << RANK_BITS)
#define RANK_MASK (MOST_TOKENS - 1)
#define SIDES_AT (2 * RANK_BITS)
#define LENGTH_AT (SIDES_AT + 3)
#define LONGEST UINT16_MAX
#define LEFT(token) ((uint32_t)(token) & RANK_MASK)
#define RIGHT(token) ((uint32_t)((token) >> RANK_BITS) & RANK_MASK)
#define SIDES(token) ((uint32_t)((token) >> SIDES_AT) & 7)
#define LENGTH(token) ((uint32_t)((token) >> LENGTH_AT))

typedef struct {
    uint32_t base, check; /* a double array: the child for a byte is node base + byte, if that one's check is the node */
    uint32_t best;        /* the longest token on the path to this node, inclusive */
} Node;

/* A node reached by whole characters of three bytes, as most are: a token, or a number above the tokens for a path that
 * ends in no token, with WITHIN; 0: no node, since a byte is no such character. */
typedef uint32_t Place;

/* Of a character of three bytes: its place from the root, its class, and whether a token may contain a part of it. */
typedef uint32_t Character;

typedef struct {
    uint64_t *tokens;
    uint32_t *ids;
    uint32_t *prefixes; /* the longest proper prefix of a token that is a token */
    uint32_t count;
    uint32_t *pairs; /* the ranks of merges, by the hash of their sides; open addressing */
    uint64_t *seen;  /* a bit for every such hash */
    unsigned shift;  /* of a hash, to a slot in `pairs` */
    Node *nodes;
    uint32_t node_count;
    uint32_t *cells;       /* [places] the node of each */
    Character *characters; /* [BASIC_PLANE] */
    uint64_t *neighbours;  /* a bit for the hash of any two characters adjacent in a token */
    uint64_t *steps;       /* from a place with a character to a place, by the hash of all characters; open addressing */
    unsigned step_shift;
    uint8_t *classes; /* [CODE_POINTS] */
} Vocabulary;

#define WITHIN (1u << 22) /* of a place: a token ends within the next character */
#define PLACE_BITS 23     /* ranks, paths that end in no token, WITHIN */
#define PLACE_MASK ((1u << PLACE_BITS) - 1)
#define CLASS_AT PLACE_BITS
#define CLASS(character) ((character) >> CLASS_AT & 3)
#define LOOSE_FIRST ((Character)1 << (CLASS_AT + 2)) /* a token contains (the end of) it and the next, not both whole */
#define LOOSE_SECOND (LOOSE_FIRST << 1)              /* it may be that next one */
#define SEEN_BITS 19
#define FACTOR 0x9E3779B97F4A7C15u
#define HASH(left, right) ((((uint64_t)(left) << RANK_BITS | (right)) + 1) * FACTOR)

/* ---- set of hashes ---- */

static inline int may_hold(const uint64_t *bits, uint64_t hash) {
    uint64_t bit = hash >> (64 - SEEN_BITS);
    return bits[bit >> 6] >> (bit & 63) & 1;
}

static void hold(uint64_t *bits, uint64_t hash) {
    uint64_t bit = hash >> (64 - SEEN_BITS);
    bits[bit >> 6] |= (uint64_t)1 << (bit & 63);
}

/* ---- pairs ---- */

/* The rank of the merge of two tokens, or NONE. */
static inline uint32_t merge_of(const Vocabulary *v, uint32_t left, uint32_t right) {
    uint64_t hash = HASH(left, right);
    if (!may_hold(v->seen, hash)) return NONE;
    uint64_t mask = ((uint64_t)1 << (64 - v->shift)) - 1;
    for (uint64_t slot = hash >> v->shift; v->pairs[slot]; slot = (slot + 1) & mask) {
        uint64_t made = v->tokens[v->pairs[slot]];
        if (LEFT(made) == left && RIGHT(made) == right) return v->pairs[slot];
    }
    return NONE;
}

/* Whether two tokens stay unmerged up to the merge of rank `limit`: undo their merges from the last on, and check
 * whether the parts that are then adjacent would have been merged earlier. */
static inline int stay(const Vocabulary *v, uint32_t left, uint32_t right, uint32_t limit) {
    uint64_t first = v->tokens[left], second = v->tokens[right];
    uint32_t between = !(SIDES(second) & WITHIN_CHARACTER);
    for (;;) {
        if (between > (SIDES(first) & SIDES(second) >> 1 & LEFT_OF_CHARACTER)) return 1;
        if (merge_of(v, left, right) < limit) return 0;
        int later = left > right; /* branchless, since it is unpredictable */
        uint32_t before = later ? RIGHT(first) : left, after = later ? right : LEFT(second);
        limit = later ? left : right + 1;
        if (before == left && after == right) { /* a byte, so the other one is undone */
            limit = later ? right + 1 : left;
            before = later ? left : RIGHT(first);
            after = later ? LEFT(second) : right;
            if (before == left && after == right) return 1;
        }
        first = v->tokens[left = before];
        second = v->tokens[right = after];
    }
}

/* ---- words ---- */

#define THREE(at, end) ((*(at) & 0xF0) == 0xE0 && (end) - (at) >= 3)
#define CODE_OF_THREE(at) (((at)[0] & 0x0Fu) << 12 | ((at)[1] & 0x3Fu) << 6 | ((at)[2] & 0x3Fu))
#define STEP_KEY(place, code) ((uint64_t)(place) << 16 | (code))
#define STEP(key, place) ((key) << PLACE_BITS | (place))

/* The longest token that is a prefix of the bytes at a place, and its length. */
static inline uint32_t longest(const Vocabulary *v, const uint8_t *at, const uint8_t *end, uint32_t *length) {
    const uint8_t *start = at;
    uint32_t node = 0;
    if (THREE(at, end)) {
        uint64_t code = CODE_OF_THREE(at), hash = code * FACTOR, mask = ((uint64_t)1 << (64 - v->step_shift)) - 1;
        Place place = v->characters[code] & PLACE_MASK;
        for (; place; at += 3) {
            const uint8_t *next = at + 3;
            if (next < end) {
                if (place & WITHIN || !THREE(next, end)) {
                    node = v->cells[place & ~WITHIN];
                    at = next;
                    break;
                }
                code = CODE_OF_THREE(next);
                hash = (hash + code) * FACTOR;
                uint64_t key = STEP_KEY(place, code), slot = hash >> v->step_shift;
                while (v->steps[slot] && v->steps[slot] >> PLACE_BITS != key) slot = (slot + 1) & mask;
                if (v->steps[slot]) {
                    place = (Place)v->steps[slot] & PLACE_MASK;
                    continue;
                }
            }
            place &= ~WITHIN;
            if (place < v->count) {
                *length = (uint32_t)(next - start);
                return place;
            }
            node = v->cells[place];
            *length = LENGTH(v->tokens[v->nodes[node].best]);
            return v->nodes[node].best;
        }
    }
    const Node *nodes = v->nodes;
    while (at < end) {
        uint32_t next = nodes[node].base + *at++;
        if (nodes[next].check != node) break;
        node = next;
    }
    *length = LENGTH(v->tokens[nodes[node].best]);
    return nodes[node].best;
}

typedef struct {
    uint64_t *closed; /* a bit for every place of a word from which there is no encoding */
    Py_ssize_t room;  /* in words of 64 bits */
} Scratch;

/* Write the tokens of a word as ranks; their number, or -1 for an error. */
static Py_ssize_t encode_word(const Vocabulary *v, Scratch *scratch, const uint8_t *word, Py_ssize_t length, uint32_t *out) {
    uint64_t few = 0, *closed = &few;
    if (length >= 64) {
        Py_ssize_t words = (length >> 6) + 1;
        if (words > scratch->room) {
            uint64_t *larger = PyMem_Realloc(scratch->closed, (size_t)words * sizeof(uint64_t));
            if (larger == NULL) {
                PyErr_NoMemory();
                return -1;
            }
            scratch->closed = larger;
            scratch->room = words;
        }
        memset(scratch->closed, 0, (size_t)words * sizeof(uint64_t));
        closed = scratch->closed;
    }
    Py_ssize_t at = 0, count = 0;
    uint32_t size, token = longest(v, word, word + length, &size);
    while (at < length) {
        Py_ssize_t end = at + size;
        if (!(closed[end >> 6] >> (end & 63) & 1) && (count == 0 || stay(v, out[count - 1], token, NONE))) {
            out[count++] = token;
            at = end;
            if (at < length) token = longest(v, word + at, word + length, &size);
            continue;
        }
        if (v->prefixes[token] != NONE) {
            token = v->prefixes[token];
        } else if (count == 0) {
            PyErr_SetString(PyExc_RuntimeError, "a word has no encoding"); /* every accepted vocabulary has one */
            return -1;
        } else {
            closed[at >> 6] |= (uint64_t)1 << (at & 63);
            token = out[--count];
            at -= LENGTH(v->tokens[token]);
        }
        size = LENGTH(v->tokens[token]);
    }
    return count;
}

/* ---- texts ---- */

/* The class of the character at a place before `end`, its length in bytes, and its code if it has three, else NONE. */
static inline uint32_t class_of(const Vocabulary *v, const uint8_t *at, const uint8_t *end, int *length, uint32_t *three) {
    uint32_t code = *at;
    *three = NONE;
    if (THREE(at, end)) {
        *length = 3;
        *three = CODE_OF_THREE(at);
        return CLASS(v->characters[*three]);
    }
    if (code >= 0xF0 && end - at >= 4) {
        code = (code & 0x07) << 18 | (at[1] & 0x3Fu) << 12 | (at[2] & 0x3Fu) << 6 | (at[3] & 0x3Fu);
        *length = 4;
    } else if (code >= 0x80 && end - at >= 2) {
        code = (code & 0x1F) << 6 | (at[1] & 0x3Fu);
        *length = 2;
    } else {
        *length = 1;
    }
    return code < CODE_POINTS ? v->classes[code] : OTHER;
}

/* The length of an English ending at an apostrophe: 's 't 'm 'd 're 've 'll; 0 if none is there. */
static inline Py_ssize_t ending(const uint8_t *at, const uint8_t *end) {
    if (end - at < 2) return 0;
    uint8_t first = at[1];
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
    if (end - at < 3) return 0;
    return ((first == 'r' || first == 'v') && at[2] == 'e') || (first == 'l' && at[2] == 'l') ? 3 : 0;
}

/* Whether a token may contain the end of one character of three bytes and the beginning of the next. */
static inline int neighbours(const Vocabulary *v, uint32_t first, uint32_t second) {
    return may_hold(v->neighbours, HASH(first, second)) ||
           (v->characters[first] & (v->characters[second] >> 1) & LOOSE_FIRST);
}

/* Write the ids of a part of a word that no token crosses; their number, or -1 for an error. */
static inline Py_ssize_t encode_part(const Vocabulary *v, Scratch *scratch, const uint8_t *part, const uint8_t *end,
                                     uint32_t *out) {
    if (end - part == 3 && THREE(part, end)) {
        Place place = v->characters[CODE_OF_THREE(part)] & PLACE_MASK & ~WITHIN;
        if (place && place < v->count) {
            *out = v->ids[place];
            return 1;
        }
    }
    if (end - part == 1) {
        *out = v->ids[*part];
        return 1;
    }
    Py_ssize_t count = encode_word(v, scratch, part, end - part, out);
    for (Py_ssize_t token = 0; token < count; token++) out[token] = v->ids[out[token]];
    return count;
}

/* Write the ids of a text, cut into words by the pattern of GPT-2:
 * 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * and words into parts; their number, or -1 for an error. */
static Py_ssize_t encode_text(const Vocabulary *v, Scratch *scratch, const uint8_t *at, const uint8_t *end, uint32_t *out) {
    const uint32_t *start = out;
    while (at < end) {
        const uint8_t *part = at;
        Py_ssize_t count = *at == '\'' ? ending(at, end) : 0;
        if (count) {
            at += count;
        } else {
            int length;
            uint32_t before, code, class = class_of(v, at, end, &length, &before);
            if (*at == ' ' && end - at > 1) {
                int next_length;
                uint32_t next_code, next = class_of(v, at + 1, end, &next_length, &next_code);
                if (next != SPACE) {
                    at++;
                    class = next;
                    length = next_length;
                    before = next_code;
                }
            }
            const uint8_t *first = at, *last = at;
            for (at += length; at < end; last = at, at += length, before = code) {
                if (class_of(v, at, end, &length, &code) != class) break;
                if (before == NONE || code == NONE || neighbours(v, before, code)) continue;
                if ((count = encode_part(v, scratch, part, at, out)) < 0) return -1;
                out += count;
                part = at;
            }
            if (at < end && class == SPACE && last > first) at = last; /* the last blank before a word belongs to it */
        }
        if (part == at) continue;
        if ((count = encode_part(v, scratch, part, at, out)) < 0) return -1;
        out += count;
    }
    return out - start;
}

/* texts as offsets and bytes; writes ids and the number of ids of each text; returns the total */
PyObject *encode(PyObject *module, PyObject *args) {
    PyObject *capsule, *arrays[4];
    Py_ssize_t from, count;
    if (!PyArg_ParseTuple(args, "OOOnnOO", &capsule, &arrays[0], &arrays[1], &from, &count, &arrays[2], &arrays[3])) return NULL;
    const Vocabulary *v = PyCapsule_GetPointer(capsule, VOCABULARY);
    if (v == NULL) return NULL;
    if (from < 0 || count < 0 || from > PY_SSIZE_T_MAX / 16 || count > PY_SSIZE_T_MAX / 16) {
        PyErr_SetString(PyExc_ValueError, "no such texts");
        return NULL;
    }
    const Py_ssize_t sizes[4] = {sizeof(int32_t), 1, sizeof(uint32_t), sizeof(int64_t)};
    const Py_ssize_t counts[4] = {from + count + 1, 0, 0, count};
    Py_buffer buffers[4];
    Py_ssize_t viewed = 0, total = -1, written = 0;
    Scratch scratch = {NULL, 0};
    for (; viewed < 4; viewed++)
        if (view(arrays[viewed], &buffers[viewed], sizes[viewed], counts[viewed], viewed < 2 ? 0 : PyBUF_WRITABLE) < 0) goto done;
    const int32_t *offsets = (const int32_t *)buffers[0].buf + from;
    const uint8_t *bytes = buffers[1].buf;
    uint32_t *out = buffers[2].buf;
    Py_ssize_t room = buffers[2].len / (Py_ssize_t)sizeof(uint32_t);
    int64_t *lengths = buffers[3].buf;
    for (Py_ssize_t text = 0; text < count; text++) {
        if (offsets[text] < 0 || offsets[text] > offsets[text + 1] || offsets[text + 1] > buffers[1].len ||
            offsets[text + 1] - offsets[text] > room - written) {
            PyErr_SetString(PyExc_ValueError, "texts lie beside their bytes, or there is no room for their ids");
            goto done;
        }
        Py_ssize_t tokens = encode_text(v, &scratch, bytes + offsets[text], bytes + offsets[text + 1], out + written);
        if (tokens < 0) goto done;
        written += tokens;
        lengths[text] = tokens;
    }
    total = written;
done:
    PyMem_Free(scratch.closed);
    while (viewed > 0) PyBuffer_Release(&buffers[--viewed]);
    return total < 0 ? NULL : PyLong_FromSsize_t(total);
}

/* ---- building a vocabulary ---- */

static void forget(Vocabulary *v) {
    PyMem_Free(v->tokens);
    PyMem_Free(v->ids);
    PyMem_Free(v->prefixes);
    PyMem_Free(v->pairs);
    PyMem_Free(v->seen);
    PyMem_Free(v->nodes);
    PyMem_Free(v->cells);
    PyMem_Free(v->characters);
    PyMem_Free(v->neighbours);
    PyMem_Free(v->steps);
    PyMem_Free(v->classes);
    PyMem_Free(v);
}

static void forget_capsule(PyObject *capsule) {
    Vocabulary *v = PyCapsule_GetPointer(capsule, VOCABULARY);
    if (v != NULL) forget(v);
}

static void *zeros(size_t count, size_t size) {
    void *memory = PyMem_Calloc(count, size);
    if (memory == NULL) PyErr_NoMemory();
    return memory;
}

static int refuse(const char *why, uint32_t token) {
    PyErr_Format(PyExc_ValueError, "merge %u %s", token - BYTES, why);
    return -1;
}

/* A trie of first children and next siblings, from which the double array is built. */
typedef struct {
    uint32_t child, sibling, token, cell;
    uint8_t byte;
} Branch;

typedef struct {
    Branch *items;
    uint32_t count, room;
} Trie;

/* The child of a branch for a byte, created if missing; 0 for an error. */
static uint32_t grow(Trie *trie, uint32_t parent, uint8_t byte) {
    uint32_t *link = &trie->items[parent].child;
    while (*link && trie->items[*link].byte < byte) link = &trie->items[*link].sibling;
    if (*link && trie->items[*link].byte == byte) return *link;
    if (trie->count == trie->room) {
        Py_ssize_t place = (char *)link - (char *)trie->items;
        Branch *larger = PyMem_Realloc(trie->items, (size_t)trie->room * 2 * sizeof(Branch));
        if (larger == NULL) {
            PyErr_NoMemory();
            return 0;
        }
        trie->items = larger;
        trie->room *= 2;
        link = (uint32_t *)((char *)larger + place);
    }
    trie->items[trie->count] = (Branch){0, *link, NONE, 0, byte};
    return *link = trie->count++;
}

/* Whether these are continuation bytes of a character. */
static int go_on(const uint8_t *bytes, uint32_t count) {
    for (uint32_t byte = 0; byte < count; byte++)
        if ((bytes[byte] & 0xC0) != 0x80) return 0;
    return 1;
}

/* Record which characters of three bytes are adjacent in a token; for a partial one, all characters it may be. */
static void note_neighbours(Vocabulary *v, const uint8_t *token, uint32_t length) {
    for (uint32_t at = 1; at < length; at++) {
        const uint8_t *second = token + at;
        uint32_t before = at < 3 ? at : 3, after = length - at < 3 ? length - at : 3;
        const uint8_t *first = second - before;
        if ((*second & 0xF0) != 0xE0 || !go_on(second + 1, after - 1)) continue;
        int whole = before == 3 && (*first & 0xF0) == 0xE0;
        if (!go_on(first + whole, before - whole) || (before == 3 && !whole)) continue;
        uint32_t code = 0, next = 0; /* the first characters they may be */
        for (uint32_t byte = 0; byte < before; byte++) code = code << 6 | (first[byte] & 0x3F);
        for (uint32_t byte = 0; byte < 3; byte++) next = next << 6 | (byte < after ? second[byte] & 0x3F : 0);
        code %= BASIC_PLANE;
        next %= BASIC_PLANE;
        if (whole && after == 3) {
            hold(v->neighbours, HASH(code, next));
            continue;
        }
        for (uint32_t step = 1u << 6 * before; code < BASIC_PLANE; code += step) v->characters[code] |= LOOSE_FIRST;
        for (uint32_t end = next + (1u << 6 * (3 - after)); next < end; next++) v->characters[next] |= LOOSE_SECOND;
    }
}

/* Insert every token into the trie. */
static int spell(Vocabulary *v, Trie *trie) {
    size_t total = 0, *starts = zeros(v->count, sizeof(size_t));
    uint8_t *bytes = NULL;
    int result = -1;
    if (starts == NULL) return -1;
    for (uint32_t token = 0; token < v->count; total += LENGTH(v->tokens[token++])) starts[token] = total;
    if (total > MOST_BYTES) {
        refuse("makes the tokens too long together", v->count - 1);
        goto done;
    }
    if ((bytes = zeros(total, 1)) == NULL) goto done;
    for (uint32_t token = 0; token < v->count; token++) {
        uint64_t made = v->tokens[token];
        uint8_t *spelled = bytes + starts[token];
        spelled[0] = (uint8_t)token;
        if (token >= BYTES) {
            uint32_t first = LENGTH(v->tokens[LEFT(made)]);
            memcpy(spelled, bytes + starts[LEFT(made)], first);
            memcpy(spelled + first, bytes + starts[RIGHT(made)], LENGTH(made) - first);
        }
        uint32_t branch = 0;
        for (uint32_t at = 0; at < LENGTH(made); at++)
            if (!(branch = grow(trie, branch, spelled[at]))) goto done;
        if (trie->items[branch].token != NONE) {
            refuse("makes what another makes", token);
            goto done;
        }
        trie->items[branch].token = token;
        note_neighbours(v, spelled, LENGTH(made));
    }
    result = 0;
done:
    PyMem_Free(starts);
    PyMem_Free(bytes);
    return result;
}

/* Add cells. */
static int reserve(Vocabulary *v, uint32_t needed) {
    if (needed <= v->node_count) return 0;
    uint32_t count = needed + needed / 2;
    Node *larger = PyMem_Realloc(v->nodes, (size_t)count * sizeof(Node));
    if (larger == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (uint32_t cell = v->node_count; cell < count; cell++) larger[cell] = (Node){0, FREE, NONE};
    v->nodes = larger;
    v->node_count = count;
    return 0;
}

/* Build the double array in breadth-first order, each node's children at the first place that fits. */
static int lay_out(Vocabulary *v, Trie *trie) {
    uint32_t *queue = zeros(trie->count, sizeof(uint32_t)), queued = 1, from = 1;
    int result = -1;
    if (queue == NULL || reserve(v, BYTES + 1) < 0) goto done;
    v->nodes[0].check = ROOT;
    for (uint32_t next = 0; next < queued; next++) {
        uint32_t branch = queue[next], cell = trie->items[branch].cell, first = trie->items[branch].child, base = 0, tries = 0;
        if (!first) continue;
        while (v->nodes[from].check != FREE)
            if (reserve(v, ++from + BYTES + 1) < 0) goto done;
        for (uint32_t place = from;; place++) { /* for the first child */
            if (reserve(v, place + BYTES + 1) < 0) goto done;
            if (++tries == MOST_TRIES) from = place; /* free cells before it stay empty */
            if (v->nodes[place].check != FREE || place < trie->items[first].byte) continue;
            base = place - trie->items[first].byte;
            uint32_t child = first;
            while (child && v->nodes[base + trie->items[child].byte].check == FREE) child = trie->items[child].sibling;
            if (!child) break;
        }
        v->nodes[cell].base = base;
        for (uint32_t child = first; child; child = trie->items[child].sibling) {
            uint32_t at = base + trie->items[child].byte, token = trie->items[child].token;
            v->nodes[at].check = cell;
            v->nodes[at].best = token == NONE ? v->nodes[cell].best : token;
            if (token != NONE) v->prefixes[token] = v->nodes[cell].best;
            trie->items[child].cell = at;
            queue[queued++] = child;
        }
    }
    result = 0;
done:
    PyMem_Free(queue);
    return result;
}

/* Whether a token ends within the character after a branch. */
static int ends_within(const Branch *items, uint32_t branch) {
    for (uint32_t first = items[branch].child; first; first = items[first].sibling) {
        if ((items[first].byte & 0xF0) != 0xE0) continue;
        if (items[first].token != NONE) return 1;
        for (uint32_t second = items[first].child; second; second = items[second].sibling)
            if (items[second].token != NONE) return 1;
    }
    return 0;
}

typedef struct {
    uint64_t hash; /* of the characters up to the place */
    uint64_t step;
    uint32_t branch;
    Place place;
} Reached;

/* Find the steps over whole characters, from the root and from every place they reach. */
static int find_steps(Vocabulary *v, const Trie *trie) {
    const Branch *items = trie->items;
    Reached *queue = zeros(trie->count, sizeof(Reached));
    uint32_t queued = 1, places = v->count;
    v->cells = zeros((size_t)v->count + trie->count, sizeof(uint32_t));
    int result = -1;
    if (queue == NULL || v->cells == NULL) goto done;
    for (uint32_t next = 0; next < queued; next++)
        for (uint32_t first = items[queue[next].branch].child; first; first = items[first].sibling)
            for (uint32_t second = items[first].child; second; second = items[second].sibling)
                for (uint32_t third = items[second].child; third; third = items[third].sibling) {
                    const uint8_t spelled[3] = {items[first].byte, items[second].byte, items[third].byte};
                    if ((spelled[0] & 0xF0) != 0xE0 || (spelled[1] & 0xC0) != 0x80 || (spelled[2] & 0xC0) != 0x80) continue;
                    uint32_t code = CODE_OF_THREE(spelled);
                    Place place = items[third].token == NONE ? places++ : items[third].token;
                    if (places > WITHIN) {
                        refuse("makes more ways than there is room for", v->count - 1);
                        goto done;
                    }
                    v->cells[place] = items[third].cell;
                    if (ends_within(items, third)) place |= WITHIN;
                    if (next)
                        queue[queued].step = STEP(STEP_KEY(queue[next].place, code), place);
                    else
                        v->characters[code] |= place;
                    queue[queued].hash = (queue[next].hash + code) * FACTOR;
                    queue[queued].branch = third;
                    queue[queued++].place = place;
                }
    while ((uint64_t)1 << (64 - v->step_shift) < (uint64_t)queued + queued / 4) v->step_shift--;
    uint64_t mask = ((uint64_t)1 << (64 - v->step_shift)) - 1;
    if ((v->steps = zeros((size_t)mask + 1, sizeof(uint64_t))) == NULL) goto done;
    for (uint32_t next = 1; next < queued; next++) {
        if (!queue[next].step) continue; /* from the root */
        uint64_t slot = queue[next].hash >> v->step_shift;
        while (v->steps[slot]) slot = (slot + 1) & mask;
        v->steps[slot] = queue[next].step;
    }
    result = 0;
done:
    PyMem_Free(queue);
    return result;
}

static uint64_t token_of(uint32_t left, uint32_t right, uint32_t sides, uint32_t length) {
    return left | (uint64_t)right << RANK_BITS | (uint64_t)sides << SIDES_AT | (uint64_t)length << LENGTH_AT;
}

/* Read the merges: a token is longer than its parts and comes after them. */
static int join(Vocabulary *v, const uint32_t *lefts, const uint32_t *rights) {
    uint64_t mask = ((uint64_t)1 << (64 - v->shift)) - 1;
    for (uint32_t byte = 0; byte < BYTES; byte++)
        v->tokens[byte] = token_of(byte, byte, (byte & 0xC0) == 0x80 ? WITHIN_CHARACTER : 0, 1);
    for (uint32_t token = BYTES; token < v->count; token++) {
        uint32_t left = lefts[token - BYTES], right = rights[token - BYTES];
        if (left >= token || right >= token) return refuse("is of parts that come after it", token);
        uint32_t length = LENGTH(v->tokens[left]) + LENGTH(v->tokens[right]);
        if (length > LONGEST) return refuse("makes a token that is too long", token);
        v->tokens[token] = token_of(left, right, SIDES(v->tokens[left]) & WITHIN_CHARACTER, length);
        uint64_t hash = HASH(left, right), slot = hash >> v->shift;
        while (v->pairs[slot]) slot = (slot + 1) & mask;
        v->pairs[slot] = token;
        hold(v->seen, hash);
    }
    return 0;
}

/* Record what may be merged across the beginning of a character, and refuse a token that is not its own encoding. */
static int check(Vocabulary *v) {
    uint64_t *tokens = v->tokens;
    for (uint32_t token = BYTES; token < v->count; token++) {
        if (SIDES(tokens[RIGHT(tokens[token])]) & WITHIN_CHARACTER) continue;
        tokens[LEFT(tokens[token])] |= (uint64_t)LEFT_OF_CHARACTER << SIDES_AT;
        tokens[RIGHT(tokens[token])] |= (uint64_t)RIGHT_OF_CHARACTER << SIDES_AT;
    }
    for (uint32_t token = BYTES; token < v->count; token++) { /* its parts precede it */
        uint64_t left = tokens[LEFT(tokens[token])], right = tokens[RIGHT(tokens[token])];
        tokens[token] |= (right & (uint64_t)LEFT_OF_CHARACTER << SIDES_AT) | (left & (uint64_t)RIGHT_OF_CHARACTER << SIDES_AT);
    }
    for (uint32_t token = BYTES; token < v->count; token++)
        if (!stay(v, LEFT(tokens[token]), RIGHT(tokens[token]), token)) return refuse("makes what encodes otherwise", token);
    return 0;
}

/* [merges] left and right sides as ranks, [tokens] ids by rank, [CODE_POINTS] classes of characters */
PyObject *vocabulary(PyObject *module, PyObject *args) {
    PyObject *arrays[4], *capsule = NULL;
    Py_buffer buffers[4];
    Py_ssize_t merges, viewed = 0;
    if (!PyArg_ParseTuple(args, "OOOOn", &arrays[0], &arrays[1], &arrays[2], &arrays[3], &merges)) return NULL;
    if (merges < 0 || merges >= MOST_TOKENS - BYTES) {
        PyErr_SetString(PyExc_ValueError, "too many merges");
        return NULL;
    }
    Trie trie = {zeros(1 << 12, sizeof(Branch)), 1, 1 << 12};
    Vocabulary *v = zeros(1, sizeof(Vocabulary));
    if (v == NULL || trie.items == NULL) goto done;
    const Py_ssize_t sizes[4] = {sizeof(uint32_t), sizeof(uint32_t), sizeof(uint32_t), 1};
    const Py_ssize_t counts[4] = {merges, merges, merges + BYTES, CODE_POINTS};
    for (; viewed < 4; viewed++)
        if (view(arrays[viewed], &buffers[viewed], sizes[viewed], counts[viewed], 0) < 0) goto done;
    v->count = (uint32_t)merges + BYTES;
    v->shift = v->step_shift = 64 - 10;
    while ((uint64_t)1 << (64 - v->shift) < (uint64_t)v->count * 2) v->shift--;
    v->tokens = zeros(v->count, sizeof(uint64_t));
    v->ids = zeros(v->count, sizeof(uint32_t));
    v->prefixes = zeros(v->count, sizeof(uint32_t));
    v->pairs = zeros((size_t)1 << (64 - v->shift), sizeof(uint32_t));
    v->seen = zeros((size_t)1 << (SEEN_BITS - 6), sizeof(uint64_t));
    v->characters = zeros(BASIC_PLANE, sizeof(Character));
    v->neighbours = zeros((size_t)1 << (SEEN_BITS - 6), sizeof(uint64_t));
    v->classes = zeros(CODE_POINTS, 1);
    if (!v->tokens || !v->ids || !v->prefixes || !v->pairs || !v->seen || !v->characters || !v->neighbours ||
        !v->classes)
        goto done;
    memcpy(v->ids, buffers[2].buf, v->count * sizeof(uint32_t));
    memcpy(v->classes, buffers[3].buf, CODE_POINTS);
    for (uint32_t code = 0; code < BASIC_PLANE; code++) v->characters[code] = (v->classes[code] & 3u) << CLASS_AT;
    trie.items[0].token = NONE;
    if (join(v, buffers[0].buf, buffers[1].buf) == 0 && spell(v, &trie) == 0 && check(v) == 0 && lay_out(v, &trie) == 0 &&
        find_steps(v, &trie) == 0)
        capsule = PyCapsule_New(v, VOCABULARY, forget_capsule);
done:
    if (capsule == NULL && v != NULL) forget(v);
    PyMem_Free(trie.items);
    while (viewed > 0) PyBuffer_Release(&buffers[--viewed]);
    return capsule;
}
