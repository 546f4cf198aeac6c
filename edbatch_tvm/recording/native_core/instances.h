#ifndef EDBATCH_INSTANCES_H
#define EDBATCH_INSTANCES_H
#include "graphs.h"

/* Instance graphs as what is recorded: every node is a call, and its type the cell ------------------------------------ */

/* The array of a graph, whose items are of this size; UNUSUAL: it is another one. */
static int take_array(PyObject *from, Py_ssize_t item, Py_buffer *view) {
    if (PyObject_GetBuffer(from, view, PyBUF_C_CONTIGUOUS) < 0) {
        PyErr_Clear();
        return UNUSUAL;
    }
    if (view->itemsize == item) return DONE;
    PyBuffer_Release(view);
    return UNUSUAL;
}

enum { NODE_TYPE, OPERAND_PTR, OPERAND_VALUE, ATTRIBUTES, MOST_ARRAYS = ATTRIBUTES + 64 };

/* Read the nodes of a graph, whose arrays are these; `counter` has, of each attribute, how many have been read. */
static int read_nodes(Engine *engine, Work *work, Recorded *recorded, Py_buffer *views, Py_ssize_t nodes, int64_t *counter) {
    int64_t *cells = (int64_t *)work->cells.data + recorded->calls, *ends = (int64_t *)work->ends.data + recorded->calls;
    int64_t *operands = (int64_t *)work->operands.data + recorded->operands;
    int64_t *integers = (int64_t *)work->integers.data + recorded->given, value = recorded->recorded;
    const int16_t *node_type = views[NODE_TYPE].buf;
    const int32_t *operand_ptr = views[OPERAND_PTR].buf, *operand_value = views[OPERAND_VALUE].buf;
    ROOM(value_at, int64_t, nodes) /* the first value of each node */
    for (Py_ssize_t node = 0; node < nodes; node++) {
        int32_t type = node_type[node];
        if (type < 0 || type >= engine->types || operand_ptr[node + 1] < operand_ptr[node]) return UNUSUAL;
        cells[node] = type;
        ends[node] = recorded->operands + operand_ptr[node + 1];
        value_at[node] = value;
        value += engine->cells[type * CELL_COLUMNS + CELL_WIDTH];
        for (int32_t n = operand_ptr[node]; n < operand_ptr[node + 1]; n++) {
            int32_t operand = operand_value[n];
            /* Rows from outside are for Python. */
            if (operand != ZERO_STATE && (operand < 0 || operand / engine->stride >= node)) return UNUSUAL;
            *operands++ = operand == ZERO_STATE ? ZERO_OPERAND : value_at[operand / engine->stride] + operand % engine->stride;
        }
        for (int32_t n = engine->attribute_first[type]; n < engine->attribute_first[type + 1]; n++) {
            Py_buffer *view = views + ATTRIBUTES + n;
            int64_t place = counter[n]++;
            if (view->obj == NULL || place >= view->len / view->itemsize) return UNUSUAL;
            *integers++ = view->itemsize == 8 ? ((int64_t *)view->buf)[place] : ((int32_t *)view->buf)[place];
            recorded->given++;
        }
    }
    recorded->calls += nodes;
    recorded->operands += operand_ptr[nodes];
    recorded->recorded = value;
    return DONE;
}

static int read_instances(Engine *engine, Work *work, Recorded *recorded, PyObject *instances) {
    int32_t attributes = engine->attribute_first[engine->types];
    if (attributes > MOST_ARRAYS - ATTRIBUTES) return UNUSUAL;
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(instances); n++) {
        PyObject *arrays = PyTuple_GET_ITEM(instances, n);
        if (!PyTuple_CheckExact(arrays) || PyTuple_GET_SIZE(arrays) != ATTRIBUTES + attributes) return UNUSUAL;
        Py_buffer views[MOST_ARRAYS] = {{0}};
        static const Py_ssize_t items[ATTRIBUTES] = {sizeof(int16_t), sizeof(int32_t), sizeof(int32_t)};
        int outcome = DONE;
        int32_t have = 0;
        for (; have < ATTRIBUTES + attributes && outcome == DONE; have++) {
            PyObject *array = PyTuple_GET_ITEM(arrays, have);
            if (have >= ATTRIBUTES && array == Py_None) continue;
            Py_ssize_t item = have < ATTRIBUTES ? items[have] : engine->attributes[have - ATTRIBUTES].bytes;
            outcome = item ? take_array(array, item, views + have) : UNUSUAL;
        }
        Py_ssize_t nodes = views[NODE_TYPE].len / (Py_ssize_t)sizeof(int16_t);
        const int32_t *operand_ptr = views[OPERAND_PTR].buf;
        if (outcome == DONE && (views[OPERAND_PTR].len != (nodes + 1) * (Py_ssize_t)sizeof(int32_t) || operand_ptr[0] != 0 ||
                                views[OPERAND_VALUE].len != operand_ptr[nodes] * (Py_ssize_t)sizeof(int32_t)))
            outcome = UNUSUAL;
        if (outcome == DONE) {
            Py_ssize_t calls = recorded->calls, all = recorded->operands;
            void *rooms[] = {
                room_for(&work->cells, (calls + nodes + 1) * sizeof(int64_t), calls * sizeof(int64_t)),
                room_for(&work->ends, (calls + nodes + 1) * sizeof(int64_t), calls * sizeof(int64_t)),
                room_for(&work->operands, (all + operand_ptr[nodes] + 1) * sizeof(int64_t), all * sizeof(int64_t)),
                room_for(&work->integers, (recorded->given + nodes * attributes + 1) * sizeof(int64_t),
                         recorded->given * sizeof(int64_t)),
                room_for(&work->counter, (attributes + 1) * sizeof(int64_t), 0),
            };
            for (size_t k = 0; k < sizeof(rooms) / sizeof(rooms[0]); k++)
                if (rooms[k] == NULL) outcome = ERROR;
            if (outcome == DONE) {
                memset(work->counter.data, 0, (attributes + 1) * sizeof(int64_t));
                outcome = read_nodes(engine, work, recorded, views, nodes, work->counter.data);
            }
        }
        while (have-- > 0)
            if (views[have].obj != NULL) PyBuffer_Release(views + have);
        if (outcome != DONE) return outcome;
    }
    return DONE;
}

#endif
