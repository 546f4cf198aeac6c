#ifndef EDBATCH_INSTANCES_H
#define EDBATCH_INSTANCES_H
#include "graphs.h"

/* A minibatch of instance graphs: the arrays of the merged graph from those of its instances --------------------------
 *
 * Every graph comes as the row of its addresses (graph/array_addresses.py), which only checked graphs have. The same as
 * native/tir/merging.py, without what results alone need.
 */

enum {
    NODES, EDGES, OUTPUTS, INSTANCES, USES, SIGNATURE, NODE_TYPE = 8, TYPE_COUNT, OPERAND_PTR, OPERAND_VALUE, USE_PTR, USER,
    WAITS, OUTPUT, OUTPUT_PTR = 17, SCALAR, ATTRIBUTES
};

/* What is added up over the rows. */
typedef struct {
    int64_t nodes, edges, uses;
} Totals;

/* The row of a graph; NULL: it is not one of this signature. */
static const int64_t *row_of_graph(PyObject *row, int64_t signature, Py_ssize_t columns) {
    if (!PyBytes_CheckExact(row) || PyBytes_GET_SIZE(row) != columns * (Py_ssize_t)sizeof(int64_t)) return NULL;
    const int64_t *column = (const int64_t *)PyBytes_AS_STRING(row);
    return column[SIGNATURE] == signature ? column : NULL;
}

static void shifted(int32_t *into, const int32_t *from, int64_t count, int32_t by) {
    for (int64_t n = 0; n < count; n++) into[n] = from[n] + by;
}

enum { LINE = 64, MOST_FETCHED = 1 << 14 };

/* Have the arrays of a graph come from memory while the one before it is read: those of a packed one lie together. */
static void fetch_ahead(const int64_t *row) {
    int64_t bytes = row[WAITS] - row[NODE_TYPE] + row[NODES] * (int64_t)sizeof(int32_t);
    for (int64_t at = 0; at < bytes && bytes <= MOST_FETCHED; at += LINE)
        __builtin_prefetch((const char *)(uintptr_t)row[NODE_TYPE] + at);
}

/* Merge the graphs of a tuple of rows; `signature` is the identity of the cells. */
static int merge_instances(Engine *engine, Work *work, PyObject *rows, int64_t signature, int32_t *edges) {
    int32_t attributes = engine->attribute_first[engine->types];
    Totals all = {0};
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(rows); n++) {
        const int64_t *row = row_of_graph(PyTuple_GET_ITEM(rows, n), signature, ATTRIBUTES + 2 * attributes);
        if (row == NULL) return UNUSUAL;
        all = (Totals){all.nodes + row[NODES], all.edges + row[EDGES], all.uses + row[USES]};
        for (int32_t a = 0; a < attributes; a++)
            if (row[ATTRIBUTES + 2 * a + 1] && !engine->attributes[a].bytes) return UNUSUAL;
    }
    if (all.nodes == 0 || all.nodes >= MOST_ENTRIES / (2 * (engine->types + LANES) + LANES) ||
        all.nodes * engine->stride > INT32_MAX || all.edges >= MOST_ENTRIES)
        return UNUSUAL;
    ROOM(node_ptr, int32_t, PyTuple_GET_SIZE(rows) + 1)
    ROOM(node_type, int16_t, all.nodes)
    ROOM(operand_ptr, int32_t, all.nodes + 1)
    ROOM(operand_value, int32_t, all.edges + 1)
    ROOM(outside_row, int32_t, 1)
    ROOM(use_ptr, int32_t, all.nodes + 1)
    ROOM(user, int32_t, all.uses + 1)
    ROOM(waits, int32_t, all.nodes)
    ROOM(type_count, int64_t, engine->types)
    memset(type_count, 0, engine->types * sizeof(int64_t));
    node_ptr[0] = outside_row[0] = operand_ptr[0] = use_ptr[0] = 0;
    user[0] = -1;
    int32_t node = 0, edge = 0, use = 0;
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(rows); n++) {
        const int64_t *row = (const int64_t *)PyBytes_AS_STRING(PyTuple_GET_ITEM(rows, n));
        if (n + 1 < PyTuple_GET_SIZE(rows)) fetch_ahead((const int64_t *)PyBytes_AS_STRING(PyTuple_GET_ITEM(rows, n + 1)));
#define FROM(type, column) ((const type *)(uintptr_t)row[column])
        memcpy(node_type + node, FROM(int16_t, NODE_TYPE), row[NODES] * sizeof(int16_t));
        memcpy(waits + node, FROM(int32_t, WAITS), row[NODES] * sizeof(int32_t));
        shifted(operand_ptr + node + 1, FROM(int32_t, OPERAND_PTR) + 1, row[NODES], edge);
        shifted(use_ptr + node + 1, FROM(int32_t, USE_PTR) + 1, row[NODES], use);
        shifted(user + use, FROM(int32_t, USER), row[USES], node);
        const int32_t *value = FROM(int32_t, OPERAND_VALUE);
        for (int64_t e = 0; e < row[EDGES]; e++)
            operand_value[edge + e] = value[e] < 0 ? value[e] : value[e] + node * engine->stride;
        for (int32_t type = 0; type < engine->types; type++) type_count[type] += FROM(int64_t, TYPE_COUNT)[type];
        node += row[NODES];
        node_ptr[n + 1] = node;
        edge += row[EDGES];
        use += row[USES];
    }
    work->nodes = node;
    *edges = edge;
    return DONE;
}

/* Where the attributes of each cell's nodes begin, in bytes; how many bytes all take. */
static size_t attribute_places(Engine *engine, const int64_t *type_count, int64_t *place) {
    size_t bytes = 0;
    for (int32_t type = 0; type < engine->types; type++)
        for (int32_t n = engine->attribute_first[type]; n < engine->attribute_first[type + 1]; n++) {
            place[n] = bytes;
            bytes += (type_count[type] * engine->attributes[n].bytes + ALIGNED - 1) / ALIGNED * ALIGNED;
        }
    return bytes;
}

/* Attributes of the instances in the order of the schedule. */
static int order_attributes(Engine *engine, Work *work, PyObject *rows, char *attributes, const int64_t *place, size_t bytes) {
    const int32_t *attribute_row = work->attribute_row.data;
    const int64_t *type_count = work->type_count.data;
    ROOM(numbers, char, bytes + ALIGNED) /* in the order of the nodes */
    for (int32_t type = 0; type < engine->types; attribute_row += type_count[type++])
        for (int32_t n = engine->attribute_first[type]; n < engine->attribute_first[type + 1]; n++) {
            int32_t item = engine->attributes[n].bytes;
            char *end = numbers;
            for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(rows); k++) {
                const int64_t *row = (const int64_t *)PyBytes_AS_STRING(PyTuple_GET_ITEM(rows, k)) + ATTRIBUTES + 2 * n;
                if (!row[1]) continue;
                memcpy(end, (const void *)(uintptr_t)row[0], row[1] * item);
                end += row[1] * item;
            }
            if (end - numbers != type_count[type] * item) return UNUSUAL;
#define ORDER(type_) \
            for (int64_t k = 0; k < type_count[type]; k++) \
                ((type_ *)(attributes + place[n]))[k] = ((type_ *)numbers)[attribute_row[k]];
            if (item == 8) ORDER(int64_t)
            else if (item == 4) ORDER(int32_t)
        }
    return DONE;
}

/* nodes_of(rows): how many nodes instance graphs have together. */
static PyObject *nodes_of(PyObject *module, PyObject *rows) {
    if (!PyTuple_CheckExact(rows)) return PyErr_Format(PyExc_TypeError, "a tuple of rows");
    int64_t nodes = 0;
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(rows); n++)
        nodes += ((const int64_t *)PyBytes_AS_STRING(PyTuple_GET_ITEM(rows, n)))[NODES];
    return PyLong_FromLongLong(nodes);
}

/* outputs_of(rows, stride): the declared outputs of instance graphs that were merged, as bytes: values, where those of
 * each instance begin, whether it declared one alone, and the types of their nodes. */
static PyObject *outputs_of(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    if (count != 2 || !PyTuple_CheckExact(arguments[0])) return PyErr_Format(PyExc_TypeError, "rows, and a stride");
    PyObject *rows = arguments[0];
    Py_ssize_t graphs = PyTuple_GET_SIZE(rows), instances = 0, all = 0, done = 0;
    int32_t stride = (int32_t)PyLong_AsLong(arguments[1]), node = 0;
    if (stride < 1) return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "a stride of %d", stride);
#define ROW(n) ((const int64_t *)PyBytes_AS_STRING(PyTuple_GET_ITEM(rows, n)))
    for (Py_ssize_t n = 0; n < graphs; n++) {
        all += ROW(n)[OUTPUTS];
        instances += ROW(n)[INSTANCES];
    }
    PyObject *parts[] = {PyBytes_FromStringAndSize(NULL, all * sizeof(int32_t)),
                         PyBytes_FromStringAndSize(NULL, (instances + 1) * sizeof(int32_t)),
                         PyBytes_FromStringAndSize(NULL, instances),
                         PyBytes_FromStringAndSize(NULL, all * sizeof(int16_t))};
    if (PyErr_Occurred()) {
        for (int n = 0; n < 4; n++) Py_XDECREF(parts[n]);
        return NULL;
    }
    int32_t *value = (int32_t *)PyBytes_AS_STRING(parts[0]), *pointer = (int32_t *)PyBytes_AS_STRING(parts[1]);
    char *scalar = PyBytes_AS_STRING(parts[2]);
    int16_t *type = (int16_t *)PyBytes_AS_STRING(parts[3]);
    *pointer = 0;
    for (Py_ssize_t n = 0; n < graphs; n++) {
        const int64_t *row = ROW(n);
        memcpy(scalar, FROM(char, SCALAR), row[INSTANCES]);
        scalar += row[INSTANCES];
        shifted(pointer + 1, FROM(int32_t, OUTPUT_PTR) + 1, row[INSTANCES], done);
        pointer += row[INSTANCES];
        for (int64_t k = 0; k < row[OUTPUTS]; k++, done++) {
            value[done] = FROM(int32_t, OUTPUT)[k] + node * stride;
            type[done] = FROM(int16_t, NODE_TYPE)[FROM(int32_t, OUTPUT)[k] / stride];
        }
        node += row[NODES];
    }
    return Py_BuildValue("(NNNN)", parts[0], parts[1], parts[2], parts[3]);
}

#endif
