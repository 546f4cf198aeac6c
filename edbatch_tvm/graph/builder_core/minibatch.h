/* The instances of a minibatch that is given as arrays. */
#ifndef EDBATCH_MINIBATCH_H
#define EDBATCH_MINIBATCH_H
#include "packing.h"

static int offsets_within(const int32_t *ptr, Py_ssize_t count, Py_ssize_t last) {
    if (count < 1 || ptr[0] != 0 || ptr[count - 1] != last) return 0;
    for (Py_ssize_t n = 1; n < count; n++)
        if (ptr[n] < ptr[n - 1]) return 0;
    return 1;
}

/* instances(cells, signature, scalar, merged, node_type, operand_ptr, operand_value, outputs, node_ptr, output_ptr, attributes):
 * the graphs of all instances in a list, or with `merged` one graph of them; None: Python is to make them, or to say why not.
 *
 * The arrays are those of a merged InstanceGraph, contiguous and of its dtypes; attributes is a tuple with an array for
 * each column of the signature, or None. */
static PyObject *instances(PyObject *module, PyObject *arguments) {
    PyObject *owner, *signature, *attributes, *list = NULL;
    Py_buffer type = {0}, ptr = {0}, value = {0}, output = {0}, node_ptr = {0}, output_ptr = {0}, *rows = NULL;
    Given *given = NULL;
    Py_ssize_t *seen = NULL, *count = NULL;
    Scratch scratch = {0};
    int scalar, merged, held = 0;
    if (!PyArg_ParseTuple(arguments, "O!Oppy*y*y*y*y*y*O!", &CellsType, &owner, &signature, &scalar, &merged, &type, &ptr, &value,
                          &output, &node_ptr, &output_ptr, &PyTuple_Type, &attributes))
        return NULL;
    Cells *cells = (Cells *)owner;
    int columns = cells->columns;
    const int32_t *begin = node_ptr.buf, *declared_at = output_ptr.buf, *operand_at = ptr.buf;
    Py_ssize_t many = node_ptr.len / 4, nodes = type.len / 2;
    rows = PyMem_Calloc(columns + 1, sizeof(Py_buffer));
    given = PyMem_Calloc(columns + 1, sizeof(Given));
    seen = PyMem_Calloc(columns + 1, sizeof(Py_ssize_t));
    count = PyMem_Calloc(cells->cells + 1, sizeof(Py_ssize_t));
    if (rows == NULL || given == NULL || seen == NULL || count == NULL || PyTuple_GET_SIZE(attributes) != columns) {
        PyErr_NoMemory();
        goto end;
    }
    if (ptr.len / 4 != nodes + 1 || output_ptr.len / 4 != many || !offsets_within(operand_at, nodes + 1, value.len / 4) ||
        !offsets_within(begin, many, nodes) || !offsets_within(declared_at, many, output.len / 4) ||
        nodes * cells->stride > INT32_MAX)
        goto end;
    for (; held < columns; held++) {
        PyObject *array = PyTuple_GET_ITEM(attributes, held);
        if (array != Py_None && PyObject_GetBuffer(array, &rows[held], PyBUF_SIMPLE) < 0) goto end;
        given[held].kept = OBJECTS;
    }
    if (merged) {
        Part part = {
            .nodes = (int32_t)nodes,
            .type = type.buf,
            .ptr = operand_at,
            .value = value.buf,
            .edges = (int32_t)(value.len / 4),
            .output = output.buf,
            .outputs = (int32_t)(output.len / 4),
            .instances = (int32_t)(many - 1),
            .node_ptr = begin,
            .output_ptr = declared_at,
            .given = given,
            .scalar = scalar,
            .no_digest = 1,
        };
        for (int n = 0; n < columns; n++) {
            Py_ssize_t row = cells->column[n].elements * cells->column[n].size;
            given[n].rows = rows[n].buf;
            given[n].count = row ? rows[n].len / row : 0;
        }
        list = packed(cells, signature, &part, 0, &scratch);
        goto end;
    }
    if ((list = PyList_New(many - 1)) == NULL) goto end;
    for (Py_ssize_t i = 0; i < many - 1; i++) {
        int32_t node_within[2] = {0, begin[i + 1] - begin[i]};
        int32_t output_within[2] = {0, declared_at[i + 1] - declared_at[i]};
        Part part = {
            .nodes = begin[i + 1] - begin[i],
            .instances = 1,
            .node_ptr = node_within,
            .output_ptr = output_within,
            .type = (int16_t *)type.buf + begin[i],
            .ptr = operand_at + begin[i],
            .value = (int32_t *)value.buf + operand_at[begin[i]],
            .edges = operand_at[begin[i + 1]] - operand_at[begin[i]],
            .output = (int32_t *)output.buf + declared_at[i],
            .outputs = declared_at[i + 1] - declared_at[i],
            .first_value = begin[i] * cells->stride,
            .given = given,
            .scalar = scalar,
        };
        memset(count, 0, cells->cells * sizeof(Py_ssize_t));
        for (int32_t v = 0; v < part.nodes; v++)
            if (part.type[v] >= 0 && part.type[v] < cells->cells) count[part.type[v]]++;
        for (int t = 0; t < cells->cells; t++)
            for (int n = 0; n < cells->cell[t].columns; n++) {
                int number = cells->cell[t].first_column + n;
                Py_ssize_t row = cells->column[number].elements * cells->column[number].size;
                if ((seen[number] + count[t]) * row > rows[number].len) goto decline;
                given[number].rows = (char *)rows[number].buf + seen[number] * row;
                given[number].count = count[t];
                seen[number] += count[t];
            }
        PyObject *graph = packed(cells, signature, &part, 0, &scratch);
        if (graph == NULL) goto decline;
        PyList_SET_ITEM(list, i, graph);
    }
    for (int n = 0; n < columns; n++)
        if (seen[n] * cells->column[n].elements * cells->column[n].size != rows[n].len) goto decline;
    goto end;
decline:
    Py_CLEAR(list);
end:
    for (int n = 0; n < held; n++)
        if (rows[n].obj != NULL) PyBuffer_Release(&rows[n]);
    PyMem_Free(rows);
    PyMem_Free(given);
    PyMem_Free(seen);
    PyMem_Free(count);
    free_scratch(&scratch);
    PyBuffer_Release(&type);
    PyBuffer_Release(&ptr);
    PyBuffer_Release(&value);
    PyBuffer_Release(&output);
    PyBuffer_Release(&node_ptr);
    PyBuffer_Release(&output_ptr);
    if (list == NULL && !PyErr_Occurred()) Py_RETURN_NONE;
    return list;
}

#endif
