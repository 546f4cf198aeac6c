/* The arrays of a minibatch from the calls of each cell. */
#ifndef EDBATCH_ASSEMBLY_H
#define EDBATCH_ASSEMBLY_H
#include "packing.h"

/* Values that the calls of a cell read: of each call one after the other `outputs` of a node, from `first` on. With
 * `counts` each call reads so many nodes, and the outputs of one number stand together. */
typedef struct {
    Py_buffer first, counts;
    int outputs;
} Read;

typedef struct {
    int type, reads;
    Py_buffer nodes;
    Read *read;
} Group;

static void free_groups(Group *groups, Py_ssize_t many) {
    for (Py_ssize_t g = 0; groups != NULL && g < many; g++) {
        for (int r = 0; groups[g].read != NULL && r < groups[g].reads; r++) {
            if (groups[g].read[r].first.obj != NULL) PyBuffer_Release(&groups[g].read[r].first);
            if (groups[g].read[r].counts.obj != NULL) PyBuffer_Release(&groups[g].read[r].counts);
        }
        if (groups[g].nodes.obj != NULL) PyBuffer_Release(&groups[g].nodes);
        PyMem_Free(groups[g].read);
    }
    PyMem_Free(groups);
}

static int take_group(Group *group, PyObject *given) {
    PyObject *reads;
    if (!PyArg_ParseTuple(given, "iy*O!", &group->type, &group->nodes, &PyTuple_Type, &reads)) return -1;
    int many = (int)PyTuple_GET_SIZE(reads);
    group->read = PyMem_Calloc(many + 1, sizeof(Read));
    if (group->read == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    group->reads = many;
    for (int r = 0; r < many; r++) {
        PyObject *counts;
        Read *read = &group->read[r];
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(reads, r), "y*Oi", &read->first, &counts, &read->outputs)) return -1;
        if (counts != Py_None && PyObject_GetBuffer(counts, &read->counts, PyBUF_SIMPLE) < 0) return -1;
    }
    return 0;
}

/* The numbers of operands, in operands[node + 1]; 0: a group is not of this form. */
static int count_operands(const Group *group, int64_t nodes, int16_t *types, int32_t *operands) {
    Py_ssize_t calls = group->nodes.len / 4;
    const int32_t *node = group->nodes.buf;
    int fixed = 0;
    for (int r = 0; r < group->reads; r++) {
        const Read *read = &group->read[r];
        if (read->counts.obj == NULL) {
            fixed += read->outputs;
            if (read->first.len != group->nodes.len) return 0;
            continue;
        }
        const int32_t *count = read->counts.buf;
        int64_t total = 0;
        if (read->counts.len != group->nodes.len) return 0;
        for (Py_ssize_t n = 0; n < calls; n++) {
            if (count[n] < 0) return 0;
            total += count[n];
        }
        if (total != read->first.len / 4) return 0;
    }
    for (Py_ssize_t n = 0; n < calls; n++) {
        if (node[n] < 0 || node[n] >= nodes || types[node[n]] >= 0) return 0;
        types[node[n]] = (int16_t)group->type;
        operands[node[n] + 1] = fixed;
    }
    for (int r = 0; r < group->reads; r++)
        if (group->read[r].counts.obj != NULL)
            for (Py_ssize_t n = 0; n < calls; n++)
                operands[node[n] + 1] += ((int32_t *)group->read[r].counts.buf)[n] * group->read[r].outputs;
    return 1;
}

static void write_operands(const Group *group, const int32_t *ptr, int32_t *values) {
    Py_ssize_t calls = group->nodes.len / 4;
    const int32_t *node = group->nodes.buf;
    if (group->reads == 1 && group->read[0].counts.obj != NULL) {
        const Read *read = &group->read[0];
        const int32_t *first = read->first.buf, *count = read->counts.buf;
        for (Py_ssize_t n = 0; n < calls; first += count[n], n++) {
            int32_t *into = values + ptr[node[n]];
            for (int slot = 0; slot < read->outputs; slot++)
                for (int32_t k = 0; k < count[n]; k++) *into++ = first[k] < 0 ? ZERO : first[k] + slot;
        }
        return;
    }
    int before = 0;
    for (int r = 0; r < group->reads; r++) {
        const int32_t *first = group->read[r].first.buf;
        int outputs = group->read[r].outputs;
        for (Py_ssize_t n = 0; n < calls; n++) {
            int32_t *into = values + ptr[node[n]] + before;
            for (int slot = 0; slot < outputs; slot++) into[slot] = first[n] < 0 ? ZERO : first[n] + slot;
        }
        before += outputs;
    }
}

/* assemble(nodes, ((type, nodes of the calls, ((first values, counts or None, outputs), ...)), ...)): the arrays
 * node_type, operand_ptr and operand_value as bytes; None where a node has no call or two, or lengths do not fit. All
 * arrays are of int32; a read with counts is the only one of its group. */
static PyObject *assemble(PyObject *module, PyObject *arguments) {
    Py_ssize_t nodes;
    PyObject *given, *types = NULL, *ptr = NULL, *values = NULL, *made = NULL;
    if (!PyArg_ParseTuple(arguments, "nO!", &nodes, &PyTuple_Type, &given)) return NULL;
    Py_ssize_t many = PyTuple_GET_SIZE(given);
    Group *groups = PyMem_Calloc(many + 1, sizeof(Group));
    if (groups == NULL) return PyErr_NoMemory();
    if (nodes < 0 || nodes > INT32_MAX / 4) goto end;
    for (Py_ssize_t g = 0; g < many; g++) {
        if (take_group(&groups[g], PyTuple_GET_ITEM(given, g)) < 0) goto end;
        for (int r = 0; r < groups[g].reads; r++)
            if (groups[g].read[r].counts.obj != NULL && groups[g].reads > 1) goto end;
    }
    types = PyBytes_FromStringAndSize(NULL, nodes * sizeof(int16_t));
    ptr = PyBytes_FromStringAndSize(NULL, (nodes + 1) * sizeof(int32_t));
    if (types == NULL || ptr == NULL) goto end;
    int16_t *type = (int16_t *)PyBytes_AS_STRING(types);
    int32_t *operands = (int32_t *)PyBytes_AS_STRING(ptr);
    memset(type, 255, nodes * sizeof(int16_t));
    operands[0] = 0;
    for (Py_ssize_t g = 0; g < many; g++)
        if (!count_operands(&groups[g], nodes, type, operands)) goto end;
    int64_t total = 0;
    for (Py_ssize_t n = 0; n < nodes; n++) {
        if (type[n] < 0) goto end;
        total += operands[n + 1];
        if (total > INT32_MAX) goto end;
        operands[n + 1] = (int32_t)total;
    }
    if ((values = PyBytes_FromStringAndSize(NULL, total * sizeof(int32_t))) == NULL) goto end;
    for (Py_ssize_t g = 0; g < many; g++)
        write_operands(&groups[g], operands, (int32_t *)PyBytes_AS_STRING(values));
    made = PyTuple_Pack(3, types, ptr, values);
end:
    free_groups(groups, many);
    Py_XDECREF(types);
    Py_XDECREF(ptr);
    Py_XDECREF(values);
    if (made == NULL && !PyErr_Occurred()) Py_RETURN_NONE;
    return made;
}

#endif
