/* Data files of trees, sentences and lattices as arrays, and the children of trees in postfix form. Items that are
 * objects of Python as arrays: items.h. The nodes of a minibatch of such arrays: nodes.h.
 *
 * Every function returns None for what is not of its form; the readers in Python say what is wrong with it. Texts are
 * UTF-8, which the caller has checked. */
#include "items.h"
#include "nodes.h"
#include "vectors.h"

/* Words ---------------------------------------------------------------------------------------------------- */

static uint32_t crc_table[256];

static void make_crc_table(void) {
    for (uint32_t n = 0; n < 256; n++) {
        uint32_t c = n;
        for (int bit = 0; bit < 8; bit++) c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
        crc_table[n] = c;
    }
}

/* The CRC-32 of a word modulo the number of rows, as vocabulary.word_id gives it. */
static int32_t word_id(const unsigned char *word, const unsigned char *end, uint32_t rows) {
    uint32_t c = 0xffffffffu;
    for (; word < end; word++) c = crc_table[(c ^ *word) & 255] ^ c >> 8;
    return (int32_t)((c ^ 0xffffffffu) % rows);
}

/* The bytes of the white space that begins here, as str.split() knows it; 0: there is none. */
static int space(const unsigned char *at, const unsigned char *end) {
    unsigned char c = *at;
    if (c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f)) return 1;
    if (c < 0x80) return 0;
    if (c == 0xc2 && at + 1 < end) return at[1] == 0x85 || at[1] == 0xa0 ? 2 : 0;
    if (at + 2 >= end) return 0;
    if (c == 0xe1) return at[1] == 0x9a && at[2] == 0x80 ? 3 : 0;
    if (c == 0xe3) return at[1] == 0x80 && at[2] == 0x80 ? 3 : 0;
    if (c != 0xe2) return 0;
    if (at[1] == 0x80) return at[2] <= 0x8a || at[2] == 0xa8 || at[2] == 0xa9 || at[2] == 0xaf ? 3 : 0;
    return at[1] == 0x81 && at[2] == 0x9f ? 3 : 0;
}

/* Whether there is nothing but white space. */
static int is_empty(const unsigned char *at, const unsigned char *end) {
    int blank;
    while (at < end && (blank = space(at, end))) at += blank;
    return at >= end;
}

static const unsigned char *line_end(const unsigned char *at, const unsigned char *end) {
    const unsigned char *found = memchr(at, '\n', end - at);
    return found == NULL ? end : found;
}

/* words(text, rows, tagged): the ids of the words of all lines, and where each line begins; with `tagged`, words are
 * word|TAG. */
static PyObject *words(PyObject *module, PyObject *arguments) {
    Py_buffer text;
    unsigned int rows;
    int tagged, good = 0;
    if (!PyArg_ParseTuple(arguments, "y*Ip", &text, &rows, &tagged)) return NULL;
    const unsigned char *at = text.buf, *end = at + text.len;
    Vector made[2] = {{0}, {0}};
    if (text.len > INT32_MAX || push(&made[1], 0) < 0) goto done;
    while (at < end) {
        const unsigned char *stop = line_end(at, end);
        while (at < stop) {
            int blank = space(at, stop);
            if (blank) {
                at += blank;
                continue;
            }
            const unsigned char *word = at, *bar = NULL;
            while (at < stop && !space(at, stop)) {
                if (*at == '|') bar = at;
                at++;
            }
            if (tagged && (bar == NULL || bar == word || bar + 1 == at)) goto done;
            if (push(&made[0], word_id(word, tagged ? bar : at, rows)) < 0) goto done;
        }
        if (push(&made[1], COUNT(made[0])) < 0) goto done;
        at = stop + 1;
    }
    good = 1;
done:
    PyBuffer_Release(&text);
    return answer(good, 2, made);
}

/* Trees ---------------------------------------------------------------------------------------------------- */

enum { WORD = -1, JOIN = -1 };

/* trees(text, rows): of all bracketed trees, one a line, the postfix form with word ids and -1 for internal nodes, the
 * label of each node, and where each tree begins. */
static PyObject *trees(PyObject *module, PyObject *arguments) {
    Py_buffer text;
    unsigned int rows;
    int good = 0;
    if (!PyArg_ParseTuple(arguments, "y*I", &text, &rows)) return NULL;
    const unsigned char *at = text.buf, *end = at + text.len;
    Vector made[3] = {{0}, {0}, {0}}, open = {0}; /* open: of each open bracket its parts so far, or WORD; its label */
    if (text.len > INT32_MAX || push(&made[2], 0) < 0) goto done;
    while (at < end) {
        const unsigned char *stop = line_end(at, end), *next = stop + 1;
        int32_t before = COUNT(made[0]), depth = 0;
        if (is_empty(at, stop)) {
            at = next;
            continue;
        }
        while (stop > at && stop[-1] == '\r') stop--;
        open.length = 0;
        for (;;) {
            while (at < stop && (*at == ' ' || *at == '\t')) at++;
            if (at >= stop) break;
            if (!depth && COUNT(made[0]) > before) goto done; /* something after the tree */
            if (*at == '(') {
                at++;
                while (at < stop && (*at == ' ' || *at == '\t')) at++;
                if (at >= stop || *at < '0' || *at > '4') goto done;
                int32_t label = *at++ - '0';
                if (at < stop && *at != ' ' && *at != '\t' && *at != '(' && *at != ')') goto done;
                if (depth) {
                    int32_t *parts = &ITEM(open, 2 * depth - 2);
                    if (*parts == WORD || *parts == 2) goto done;
                    ++*parts;
                }
                if (push(&open, 0) < 0 || push(&open, label) < 0) goto done;
                depth++;
            } else if (!depth) {
                goto done;
            } else if (*at == ')') {
                at++;
                int32_t parts = ITEM(open, 2 * depth - 2), label = ITEM(open, 2 * depth - 1);
                open.length -= 8;
                depth--;
                if (parts == WORD) continue;
                if (parts != 2 || push(&made[0], JOIN) < 0 || push(&made[1], label) < 0) goto done;
            } else {
                const unsigned char *word = at;
                while (at < stop && *at != ' ' && *at != '\t' && *at != '(' && *at != ')') at++;
                if (ITEM(open, 2 * depth - 2) != 0) goto done;
                ITEM(open, 2 * depth - 2) = WORD;
                if (push(&made[0], word_id(word, at, rows)) < 0 || push(&made[1], ITEM(open, 2 * depth - 1)) < 0)
                    goto done;
            }
        }
        if (depth) goto done;
        if (push(&made[2], COUNT(made[0])) < 0) goto done;
        at = next;
    }
    good = 1;
done:
    PyMem_Free(open.data);
    PyBuffer_Release(&text);
    return answer(good && !PyErr_Occurred(), 3, made);
}

/* children(symbols, ptr, arity): the children of all internal nodes, one after the other, as positions in `symbols`. An
 * internal node, a negative symbol, has `arity` of them; with arity 0, symbol -k has k. */
static PyObject *children(PyObject *module, PyObject *arguments) {
    Py_buffer symbols, ptr;
    int arity, good = 0;
    if (!PyArg_ParseTuple(arguments, "y*y*i", &symbols, &ptr, &arity)) return NULL;
    const int32_t *symbol = symbols.buf, *begin = ptr.buf;
    Py_ssize_t many = ptr.len / 4 - 1, count = symbols.len / 4;
    Vector made[1] = {{0}}, stack = {0};
    if (many < 0 || begin[0] != 0 || begin[many] != count) goto done;
    for (Py_ssize_t t = 0; t < many; t++) {
        stack.length = 0;
        if (begin[t + 1] < begin[t] || begin[t + 1] > count) goto done;
        for (int32_t n = begin[t]; n < begin[t + 1]; n++) {
            if (symbol[n] < 0) {
                int64_t parts = arity ? arity : -(int64_t)symbol[n];
                if (parts > COUNT(stack)) goto done;
                void *place = more(&made[0], 4 * parts);
                if (place == NULL) goto done;
                stack.length -= 4 * parts;
                memcpy(place, stack.data + stack.length, 4 * parts);
            }
            if (push(&stack, n) < 0) goto done;
        }
    }
    good = 1;
done:
    PyMem_Free(stack.data);
    PyBuffer_Release(&symbols);
    PyBuffer_Release(&ptr);
    return answer(good && !PyErr_Occurred(), 1, made);
}

/* merged(symbols, labels, ptr): binary trees in postfix form with the internal nodes merged into their parents that have
 * the labels of these: symbols, -k for an internal node of k parts; and where each tree begins. */
static PyObject *merged(PyObject *module, PyObject *arguments) {
    Py_buffer symbols, labels, ptr;
    int good = 0;
    if (!PyArg_ParseTuple(arguments, "y*y*y*", &symbols, &labels, &ptr)) return NULL;
    const int32_t *symbol = symbols.buf, *label = labels.buf, *begin = ptr.buf;
    Py_ssize_t many = ptr.len / 4 - 1, count = symbols.len / 4;
    Vector made[2] = {{0}, {0}}, stack = {0}, parts = {0};
    int32_t *parent = PyMem_Malloc((count + 1) * sizeof(int32_t));
    if (parent == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    if (labels.len != symbols.len || many < 0 || begin[0] != 0 || begin[many] != count || push(&made[1], 0) < 0)
        goto done;
    for (Py_ssize_t t = 0; t < many; t++) {
        int32_t first = begin[t], last = begin[t + 1];
        if (last < first || last > count) goto done;
        stack.length = parts.length = 0;
        for (int32_t n = first; n < last; n++) {
            if (symbol[n] < 0) {
                if (COUNT(stack) < 2) goto done;
                stack.length -= 8;
                parent[ITEM(stack, COUNT(stack))] = parent[ITEM(stack, COUNT(stack) + 1)] = n;
            }
            if (push(&stack, n) < 0) goto done;
        }
        for (int32_t n = 0; n < COUNT(stack); n++) parent[ITEM(stack, n)] = -1;
        for (int32_t n = first; n < last; n++) {
            int32_t own = 1;
            if (symbol[n] >= 0) {
                if (push(&made[0], symbol[n]) < 0) goto done;
            } else {
                parts.length -= 8;
                int32_t both = ITEM(parts, COUNT(parts)) + ITEM(parts, COUNT(parts) + 1);
                if (parent[n] >= 0 && label[parent[n]] == label[n]) own = both;
                else if (push(&made[0], -both) < 0) goto done;
            }
            if (push(&parts, own) < 0) goto done;
        }
        if (push(&made[1], COUNT(made[0])) < 0) goto done;
    }
    good = 1;
done:
    PyMem_Free(parent);
    PyMem_Free(stack.data);
    PyMem_Free(parts.data);
    PyBuffer_Release(&symbols);
    PyBuffer_Release(&labels);
    PyBuffer_Release(&ptr);
    return answer(good && !PyErr_Occurred(), 2, made);
}

/* Lattices ------------------------------------------------------------------------------------------------- */

typedef struct {
    const unsigned char *at, *end;
} Text;

/* The numbers of the next line; 0: it has something else, or there is none. */
static int numbers(Text *text, Vector *into) {
    into->length = 0;
    if (text->at >= text->end) return 0;
    const unsigned char *at = text->at, *stop = line_end(at, text->end);
    text->at = stop + 1;
    while (at < stop) {
        int blank = space(at, stop);
        if (blank) {
            at += blank;
            continue;
        }
        int64_t number = 0;
        const unsigned char *begin = at;
        for (; at < stop && *at >= '0' && *at <= '9'; at++) {
            if (at - begin == 18) return 0;
            number = 10 * number + (*at - '0');
        }
        if (at == begin || (at < stop && !space(at, stop))) return 0;
        int64_t *place = more(into, sizeof number);
        if (place == NULL) return 0;
        *place = number;
    }
    return 1;
}

static void skip_empty(Text *text) {
    while (text->at < text->end) {
        const unsigned char *stop = line_end(text->at, text->end);
        if (!is_empty(text->at, stop)) return;
        text->at = stop + 1;
    }
}

/* lattices(text, rows): the sources and labels of all arcs, where the arcs into each node begin, and where the nodes of
 * each lattice begin. */
static PyObject *lattices(PyObject *module, PyObject *arguments) {
    Py_buffer buffer;
    unsigned int rows;
    int good = 0;
    if (!PyArg_ParseTuple(arguments, "y*I", &buffer, &rows)) return NULL;
    Text text = {buffer.buf, (unsigned char *)buffer.buf + buffer.len};
    Vector made[4] = {{0}, {0}, {0}, {0}}, line = {0};
#define NUMBERS (line.length / 8)
#define NUMBER(n) (((int64_t *)line.data)[n])
    if (buffer.len > INT32_MAX || !numbers(&text, &line) || NUMBERS != 1) goto done;
    int64_t count = NUMBER(0), nodes = 0;
    if (push(&made[2], 0) < 0 || push(&made[3], 0) < 0) goto done;
    for (int64_t n = 0; n < count; n++) {
        skip_empty(&text);
        if (!numbers(&text, &line) || NUMBERS != 1 || NUMBER(0) < 1) goto done;
        int64_t size = NUMBER(0);
        if (!numbers(&text, &line) || NUMBERS != size) goto done;
        for (int64_t node = 0; node < size; node++) {
            if (!numbers(&text, &line) || NUMBERS < 1 || NUMBERS % 2 != 1 || NUMBER(0) != NUMBERS / 2) goto done;
            int32_t arcs = (int32_t)NUMBER(0);
            for (int32_t arc = 0; arc < arcs; arc++) {
                if (NUMBER(1 + 2 * arc) >= node) goto done;
                if (push(&made[0], (int32_t)NUMBER(1 + 2 * arc)) < 0 ||
                    push(&made[1], (int32_t)(NUMBER(2 + 2 * arc) % rows)) < 0)
                    goto done;
            }
            if (push(&made[2], COUNT(made[0])) < 0) goto done;
        }
        nodes += size;
        if (push(&made[3], (int32_t)nodes) < 0) goto done;
    }
    skip_empty(&text);
    good = text.at >= text.end;
done:
    PyMem_Free(line.data);
    PyBuffer_Release(&buffer);
    return answer(good && !PyErr_Occurred(), 4, made);
}

static PyMethodDef functions[] = {
    {"words", words, METH_VARARGS, "The words of all lines."},
    {"trees", trees, METH_VARARGS, "Bracketed trees in postfix form."},
    {"children", children, METH_VARARGS, "The children of all internal nodes."},
    {"merged", merged, METH_VARARGS, "Trees with nodes merged into parents of their label."},
    {"lattices", lattices, METH_VARARGS, "Word lattices."},
    {"sequences", sequences_of, METH_O, "Sequences of integers as arrays."},
    {"nested_arcs", nested_arcs, METH_O, "Lattices as arrays."},
    {"tree_nodes", tree_nodes, METH_VARARGS, "The nodes of trees."},
    {"sentence_nodes", sentence_nodes, METH_VARARGS, "The nodes of sentences."},
    {"lattice_nodes", lattice_nodes, METH_VARARGS, "The nodes of lattices."},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "edbatch_reader_core", .m_size = -1,
                                        .m_methods = functions};

PyMODINIT_FUNC PyInit_edbatch_reader_core(void) {
    make_crc_table();
    return PyModule_Create(&definition);
}
