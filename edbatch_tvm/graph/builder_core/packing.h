/* An instance, or a minibatch of several, as an InstanceGraph whose arrays lie in one block of bytes, with what the first merge asks for: the users
 * of each node, the digest and the addresses (array_addresses.py, node_users.py, instance.py). Everything that
 * validate.py checks is checked here; what does not pass is left to Python, which says what is wrong with it. */
#ifndef EDBATCH_PACKING_H
#define EDBATCH_PACKING_H
#include "blake2b.h"
#include "cells.h"

/* Columns of the row of addresses, as in array_addresses.py. */
enum {
    NODES, EDGES, OUTPUTS, INSTANCES, USES, SIGNATURE, DIGEST, NODE_TYPE = 8, TYPE_COUNT, OPERAND_PTR, OPERAND_VALUE,
    USE_PTR, USER, WAITS, OUTPUT, NODE_PTR, OUTPUT_PTR, SCALAR, ATTRIBUTES
};

/* Rows of an attribute as they are given. */
typedef struct {
    int kept; /* INTEGERS (int64), FLOATS (double), BOOLEANS (char); OBJECTS: as they are wanted */
    const char *rows;
    Py_ssize_t count;
} Given;

typedef struct {
    int32_t nodes, edges, outputs, instances;
    const int32_t *node_ptr, *output_ptr; /* instances + 1; where the nodes and outputs of each instance begin */
    const int16_t *type;
    const int32_t *ptr;    /* nodes + 1; only differences count */
    const int32_t *value;  /* edges */
    const int32_t *output; /* outputs */
    int32_t first_value;   /* what the values of the first instance begin with */
    Given *given;          /* of each column */
    int scalar;            /* whether the output of each instance was declared as a value */
    int no_digest;         /* whether the digest is left to who asks for it: hashing takes as long as all the rest */
} Part;

/* Memory that is used again: of each node the node that last read it, its number of users, and what it waits for; of each
 * operand the node whose user this operand makes, or -1: a zero state, or one that is a user by another operand. */
typedef struct {
    int32_t *last, *users, *waits, *producer;
    int64_t *type_count;
    Py_ssize_t room, edges;
} Scratch;

static void free_scratch(Scratch *scratch) {
    PyMem_Free(scratch->last);
    PyMem_Free(scratch->producer);
    PyMem_Free(scratch->type_count);
    memset(scratch, 0, sizeof *scratch);
}

static int make_room(Scratch *scratch, int types, Py_ssize_t nodes, Py_ssize_t edges) {
    if (scratch->type_count == NULL && (scratch->type_count = PyMem_Malloc((types + 1) * sizeof(int64_t))) == NULL)
        return -1;
    if (edges > scratch->edges) {
        int32_t *made = PyMem_Realloc(scratch->producer, 2 * edges * sizeof(int32_t));
        if (made == NULL) return -1;
        scratch->producer = made;
        scratch->edges = 2 * edges;
    }
    if (nodes <= scratch->room) return 0;
    int32_t *made = PyMem_Realloc(scratch->last, 3 * (2 * nodes) * sizeof(int32_t));
    if (made == NULL) return -1;
    scratch->last = made;
    scratch->room = 2 * nodes;
    scratch->users = made + scratch->room;
    scratch->waits = scratch->users + scratch->room;
    return 0;
}

/* Checks nodes and operands, and finds who uses what; 0: something is wrong. */
static inline int find_producers(const Cells *cells, const Part *part, Scratch *scratch, int64_t *uses, const int32_t stride) {
    int32_t nodes = part->nodes, *last = scratch->last, *users = scratch->users, *producer = scratch->producer;
    const int16_t *type = part->type;
    const int32_t *arena = cells->output_arena;
    int64_t total = 0;
    int32_t instance = 0, first = 0; /* of a node: its instance, and the first node of that */
    memset(scratch->type_count, 0, cells->cells * sizeof(int64_t));
    memset(last, 0xff, nodes * sizeof(int32_t));
    memset(users, 0, nodes * sizeof(int32_t));
    if (part->ptr[nodes] - part->ptr[0] != part->edges) return 0;
    for (int32_t v = 0; v < nodes; v++) {
        while (v >= part->node_ptr[instance + 1]) first = part->node_ptr[++instance];
        if (type[v] < 0 || type[v] >= cells->cells) return 0;
        scratch->type_count[type[v]]++;
        const Cell *cell = &cells->cell[type[v]];
        int32_t begin = part->ptr[v] - part->ptr[0], end = part->ptr[v + 1] - part->ptr[0], rows = 1, waits = 0;
        int32_t rest = end - begin - cell->fixed;
        if (begin < 0 || end > part->edges || rest < 0) return 0;
        if (cell->variadics) {
            rows = rest / cell->variadics;
            if (rows * cell->variadics != rest) return 0;
        } else if (rest) return 0;
        for (int slot = 0; slot < cell->operands; slot++) {
            for (int32_t n = cell->variadic[slot] ? rows : 1; n; n--, begin++) {
                producer[begin] = -1;
                if (part->value[begin] == ZERO) continue;
                int64_t local = (int64_t)part->value[begin] - part->first_value;
                if (local < 0 || local >= (int64_t)v * stride) return 0;
                int32_t node = (uint32_t)local / stride;
                if (node < first || arena[type[node] * stride + ((int32_t)local - node * stride)] != cell->arena[slot])
                    return 0;
                if (last[node] == v) continue;
                last[node] = v;
                producer[begin] = node;
                users[node]++;
                waits++;
            }
        }
        scratch->waits[v] = waits;
        total += waits;
    }
    *uses = total;
    for (instance = 0; instance < part->instances; instance++)
        for (int32_t n = part->output_ptr[instance]; n < part->output_ptr[instance + 1]; n++) {
            int64_t local = (int64_t)part->output[n] - part->first_value;
            if (local < 0 || local >= (int64_t)nodes * stride) return 0;
            int32_t node = (uint32_t)local / stride;
            if (node < part->node_ptr[instance] || node >= part->node_ptr[instance + 1]) return 0;
            if (arena[type[node] * stride + ((int32_t)local - node * stride)] < 0) return 0;
        }
    return 1;
}

/* The same with divisions by the usual numbers, which are shifts. */
static int count_uses(const Cells *cells, const Part *part, Scratch *scratch, int64_t *uses) {
    if (cells->stride == 1) return find_producers(cells, part, scratch, uses, 1);
    if (cells->stride == 2) return find_producers(cells, part, scratch, uses, 2);
    return find_producers(cells, part, scratch, uses, cells->stride);
}

#define COPY_INTEGERS(type)                                                      \
    for (Py_ssize_t n = 0; n < count; n++) {                                     \
        int64_t row = from[n];                                                   \
        type cast = (type)row;                                                   \
        if ((int64_t)cast != row || row < low || row >= high) return 0;          \
        memcpy(into + n * sizeof(type), &cast, sizeof(type));                    \
    }                                                                            \
    return 1;

static int copy_integers(const Column *column, const int64_t *from, Py_ssize_t count, char *into) {
    int64_t low = column->bound >= 0 || column->kind == 'u' ? 0 : INT64_MIN;
    int64_t high = column->bound >= 0 ? column->bound : INT64_MAX;
    if (column->bound < 0 && column->size == 8) { /* below no bound; INT64_MAX itself is a number */
        for (Py_ssize_t n = 0; n < count; n++)
            if (from[n] < low) return 0;
        memcpy(into, from, count * sizeof(int64_t));
        return 1;
    }
    if (column->kind == 'i') switch (column->size) {
            case 1: COPY_INTEGERS(int8_t)
            case 2: COPY_INTEGERS(int16_t)
            case 4: COPY_INTEGERS(int32_t)
            case 8: COPY_INTEGERS(int64_t)
        }
    if (column->kind == 'u') switch (column->size) {
            case 1: COPY_INTEGERS(uint8_t)
            case 2: COPY_INTEGERS(uint16_t)
            case 4: COPY_INTEGERS(uint32_t)
            case 8: COPY_INTEGERS(uint64_t)
        }
    return 0;
}

#define CHECK_BOUND(type)                                                        \
    for (Py_ssize_t n = 0; n < count; n++) {                                     \
        type element;                                                            \
        memcpy(&element, from + n * sizeof(type), sizeof(type));                 \
        if (element < 0 || (uint64_t)element >= bound) return 0;                 \
    }                                                                            \
    return 1;

/* Whether elements that are as they are wanted are within their bound. */
static int within_bound(const Column *column, const char *from, Py_ssize_t count) {
    uint64_t bound = (uint64_t)column->bound;
    if (column->bound < 0) return 1;
    if (column->kind == 'i') switch (column->size) {
            case 1: CHECK_BOUND(int8_t)
            case 2: CHECK_BOUND(int16_t)
            case 4: CHECK_BOUND(int32_t)
            case 8: CHECK_BOUND(int64_t)
        }
    return 0; /* of other dtypes Python checks it */
}

static int copy_rows(const Column *column, const Given *given, char *into) {
    Py_ssize_t count = given->count;
    if (given->kept == INTEGERS) return copy_integers(column, (const int64_t *)given->rows, count, into);
    if (given->kept == FLOATS && column->size == 4) {
        if (column->bound >= 0) return 0;
        const double *from = (const double *)given->rows;
        for (Py_ssize_t n = 0; n < count; n++) {
            double wide = from[n];
            if (wide - wide == 0 && (wide > 3.4028234e38 || wide < -3.4028234e38)) return 0; /* NumPy warns of it */
            ((float *)into)[n] = (float)wide;
        }
        return 1;
    }
    if (!within_bound(column, given->rows, count * column->elements)) return 0;
    memcpy(into, given->rows, count * column->elements * column->size);
    return 1;
}

static PyObject *str_signature, *str_checked, *str_serial, *str_merge_row, *str_packed;

static PyObject *new_graph(PyObject *signature, int64_t serial, PyObject *row, PyObject *block) {
    static PyObject *nothing;
    if (nothing == NULL && (nothing = PyTuple_New(0)) == NULL) return NULL;
    PyObject *graph = InstanceGraph_->tp_new(InstanceGraph_, nothing, NULL);
    PyObject *number = PyLong_FromLongLong(serial);
    if (graph == NULL || number == NULL || PyObject_SetAttr(graph, str_signature, signature) < 0 ||
        PyObject_SetAttr(graph, str_checked, Py_True) < 0 || PyObject_SetAttr(graph, str_serial, number) < 0 ||
        PyObject_SetAttr(graph, str_packed, block) < 0 || PyObject_SetAttr(graph, str_merge_row, row) < 0)
        Py_CLEAR(graph);
    Py_XDECREF(number);
    return graph;
}

/* The graph of an instance; NULL without an error: Python is to make it, or to say why not. */
static PyObject *packed(const Cells *cells, PyObject *signature, const Part *part, int64_t serial, Scratch *scratch) {
    int32_t nodes = part->nodes;
    int64_t uses;
    if (nodes < 1) return NULL;
    if (make_room(scratch, cells->cells, nodes, part->edges) < 0) return PyErr_NoMemory();
    if (!count_uses(cells, part, scratch, &uses)) return NULL;
    for (int t = 0; t < cells->cells; t++)
        for (int n = 0; n < cells->cell[t].columns; n++)
            if (part->given[cells->cell[t].first_column + n].count != scratch->type_count[t]) return NULL;

    int columns = ATTRIBUTES + 2 * cells->columns;
    size_t bytes[ATTRIBUTES] = {0}, total = 0, begin[ATTRIBUTES];
    bytes[NODE_TYPE] = nodes * sizeof(int16_t);
    bytes[TYPE_COUNT] = cells->cells * sizeof(int64_t);
    bytes[OPERAND_PTR] = bytes[USE_PTR] = (nodes + 1) * sizeof(int32_t);
    bytes[OPERAND_VALUE] = part->edges * sizeof(int32_t);
    bytes[USER] = uses * sizeof(int32_t);
    bytes[WAITS] = nodes * sizeof(int32_t);
    bytes[OUTPUT] = part->outputs * sizeof(int32_t);
    bytes[NODE_PTR] = bytes[OUTPUT_PTR] = (part->instances + 1) * sizeof(int32_t);
    bytes[SCALAR] = part->instances;
    for (int n = NODE_TYPE; n < ATTRIBUTES; n++) begin[n] = total, total += (bytes[n] + 15) / 16 * 16;
    size_t attributes = total;
    for (int n = 0; n < cells->columns; n++)
        total += (part->given[n].count * cells->column[n].elements * cells->column[n].size + 15) / 16 * 16;
    PyObject *block = PyBytes_FromStringAndSize(NULL, total), *row = NULL, *graph = NULL;
    if (block != NULL) row = PyBytes_FromStringAndSize(NULL, columns * sizeof(int64_t));
    if (row == NULL) goto end;
    char *base = PyBytes_AS_STRING(block);
    int64_t *address = (int64_t *)PyBytes_AS_STRING(row);
    for (int n = NODE_TYPE; n < ATTRIBUTES; n++) address[n] = (int64_t)(intptr_t)(base + begin[n]);
#define AT(column, type) ((type *)(base + begin[column]))
    memcpy(AT(NODE_TYPE, char), part->type, bytes[NODE_TYPE]);
    memcpy(AT(TYPE_COUNT, char), scratch->type_count, bytes[TYPE_COUNT]);
    memcpy(AT(WAITS, char), scratch->waits, bytes[WAITS]);
    int32_t *ptr = AT(OPERAND_PTR, int32_t), *value = AT(OPERAND_VALUE, int32_t), *output = AT(OUTPUT, int32_t);
    if (part->ptr[0]) for (int32_t v = 0; v <= nodes; v++) ptr[v] = part->ptr[v] - part->ptr[0];
    else memcpy(ptr, part->ptr, bytes[OPERAND_PTR]);
    if (part->first_value)
        for (int32_t e = 0; e < part->edges; e++)
            value[e] = part->value[e] == ZERO ? ZERO : part->value[e] - part->first_value;
    else memcpy(value, part->value, bytes[OPERAND_VALUE]);
    for (int32_t n = 0; n < part->outputs; n++) output[n] = part->output[n] - part->first_value;
    int32_t *use_ptr = AT(USE_PTR, int32_t), *user = AT(USER, int32_t), *next = scratch->users;
    use_ptr[0] = 0;
    for (int32_t v = 0; v < nodes; v++) {
        use_ptr[v + 1] = use_ptr[v] + next[v];
        next[v] = use_ptr[v];
    }
    const int32_t *producer = scratch->producer;
    for (int32_t v = 0; v < nodes; v++)
        for (int32_t e = ptr[v]; e < ptr[v + 1]; e++)
            if (producer[e] >= 0) user[next[producer[e]]++] = v;
    memcpy(AT(NODE_PTR, char), part->node_ptr, bytes[NODE_PTR]);
    memcpy(AT(OUTPUT_PTR, char), part->output_ptr, bytes[OUTPUT_PTR]);
    memset(AT(SCALAR, char), part->scalar, bytes[SCALAR]);
    for (int n = 0; n < cells->columns; n++) {
        const Column *column = &cells->column[n];
        const Given *given = &part->given[n];
        if (!copy_rows(column, given, base + attributes)) goto end;
        address[ATTRIBUTES + 2 * n] = given->count ? (int64_t)(intptr_t)(base + attributes) : 0;
        address[ATTRIBUTES + 2 * n + 1] = given->count;
        attributes += (given->count * column->elements * column->size + 15) / 16 * 16;
    }
    address[DIGEST] = address[DIGEST + 1] = 0;
    if (!part->no_digest) {
        Hash hash;
        char head[32];
        hash_begin(&hash);
        hash_more(&hash, head, snprintf(head, sizeof head, "(%d, ", (int)nodes));
        hash_more(&hash, PyBytes_AS_STRING(cells->names), PyBytes_GET_SIZE(cells->names));
        hash_more(&hash, ")", 1);
        hash_more(&hash, part->type, bytes[NODE_TYPE]);
        hash_more(&hash, ptr, bytes[OPERAND_PTR]);
        hash_more(&hash, value, bytes[OPERAND_VALUE]);
        hash_end(&hash, &address[DIGEST]);
    }
    address[NODES] = nodes;
    address[EDGES] = part->edges;
    address[OUTPUTS] = part->outputs;
    address[INSTANCES] = part->instances;
    address[USES] = uses;
    address[SIGNATURE] = (int64_t)(intptr_t)signature;
    graph = new_graph(signature, serial, row, block);
end:
    Py_XDECREF(row);
    Py_XDECREF(block);
    return graph;
}

#endif
