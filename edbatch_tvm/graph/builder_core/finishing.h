/* The end of an instance: finish makes the graph of what was recorded, drain gives all of it to Python. */
#ifndef EDBATCH_FINISHING_H
#define EDBATCH_FINISHING_H
#include "recording.h"

/* The declared outputs as values; 0: they are something that Python looks at; -1: an error. */
static int declared(Recording *self, PyObject *outputs, Vector *into, int *scalar) {
    Py_ssize_t count = PyTuple_GET_SIZE(outputs);
    PyObject *all = outputs;
    *scalar = 0;
    if (count == 1) {
        PyObject *only = PyTuple_GET_ITEM(outputs, 0);
        if (PyList_CheckExact(only) || PyTuple_CheckExact(only)) all = only;
        else if (Py_TYPE(only) == Value_) *scalar = 1;
        else {
            Py_buffer buffer;
            if (!PyObject_CheckBuffer(only)) return 0;
            if (PyObject_GetBuffer(only, &buffer, PyBUF_FORMAT | PyBUF_ND) < 0) {
                PyErr_Clear();
                return 0;
            }
            int good = buffer.ndim == 1 && buffer.itemsize == 8 && buffer.format != NULL &&
                       (!strcmp(buffer.format, "l") || !strcmp(buffer.format, "q"));
            count = good ? buffer.shape[0] : 0;
            int32_t *place = good ? more(into, count * sizeof(int32_t)) : NULL;
            for (Py_ssize_t n = 0; place != NULL && good && n < count; n++) {
                int64_t number = ((int64_t *)buffer.buf)[n];
                good = number >> LOCAL_BITS == self->serial;
                place[n] = (int32_t)(uint32_t)number;
            }
            PyBuffer_Release(&buffer);
            return PyErr_Occurred() ? -1 : good;
        }
    }
    count = PySequence_Fast_GET_SIZE(all);
    int32_t *place = more(into, count * sizeof(int32_t));
    if (place == NULL) return -1;
    for (Py_ssize_t n = 0; n < count; n++) {
        PyObject *value = PySequence_Fast_GET_ITEM(all, n);
        if (Py_TYPE(value) != Value_) return 0;
        int64_t number = PyLong_AsLongLong(value);
        if (number >> LOCAL_BITS != self->serial) {
            PyErr_Clear();
            return 0;
        }
        place[n] = (int32_t)(uint32_t)number;
    }
    return 1;
}

/* finish(outputs): the graph of what was recorded; None: Python is to make it, or to say why not. */
static PyObject *recording_finish(Recording *self, PyObject *outputs) {
    if (!PyTuple_Check(outputs)) return PyErr_Format(PyExc_TypeError, "outputs in a tuple");
    int columns = self->cells->columns, held = 0;
    Py_ssize_t nodes = COUNT(self->types, int16_t);
    if (PyList_GET_SIZE(self->others) || nodes == 0) Py_RETURN_NONE;
    Vector output = {0};
    int32_t node_ptr[2] = {0, (int32_t)nodes}, output_ptr[2] = {0, 0};
    Part part = {.nodes = (int32_t)nodes,
                 .edges = (int32_t)COUNT(self->values, int32_t),
                 .instances = 1,
                 .node_ptr = node_ptr,
                 .output_ptr = output_ptr};
    PyObject *graph = NULL;
    int32_t *ptr = PyMem_Malloc((nodes + 1) * sizeof(int32_t));
    Given *given = PyMem_Calloc(columns + 1, sizeof(Given));
    Py_buffer *buffers = PyMem_Calloc(columns + 1, sizeof(Py_buffer));
    PyObject **arrays = PyMem_Calloc(columns + 1, sizeof(PyObject *));
    if (ptr == NULL || given == NULL || buffers == NULL || arrays == NULL) {
        PyErr_NoMemory();
        goto end;
    }
    if (declared(self, outputs, &output, &part.scalar) <= 0) goto end;
    for (; held < columns; held++) {
        const Column *column = &self->cells->column[held];
        Rows *rows = &self->rows[held];
        given[held] = (Given){rows->kept, rows->rows.data, count_rows(rows)};
        if (rows->kept != OBJECTS || !given[held].count) continue;
        /* Rows that are arrays or lists: NumPy makes one array of them. */
        arrays[held] = PyObject_CallFunction(self->attribute_array, "iO", held, rows->objects);
        if (arrays[held] == NULL || PyObject_GetBuffer(arrays[held], &buffers[held], PyBUF_SIMPLE) < 0) {
            PyErr_Clear(); /* Python's way finds the same error, or one that comes before it */
            goto end;
        }
        given[held].rows = buffers[held].buf;
        if (buffers[held].len != given[held].count * column->elements * column->size) {
            held++;
            goto end;
        }
    }
    ptr[0] = 0;
    memcpy(ptr + 1, self->ends.data, nodes * sizeof(int32_t));
    part.type = (int16_t *)self->types.data;
    part.ptr = ptr;
    part.value = (int32_t *)self->values.data;
    part.output = (int32_t *)output.data;
    part.outputs = output_ptr[1] = (int32_t)COUNT(output, int32_t);
    part.given = given;
    graph = packed(self->cells, self->signature, &part, self->serial, &self->scratch);
end:
    for (int n = 0; arrays != NULL && buffers != NULL && n < columns; n++) {
        if (buffers[n].obj != NULL) PyBuffer_Release(&buffers[n]);
        Py_XDECREF(arrays[n]);
    }
    PyMem_Free(arrays);
    PyMem_Free(buffers);
    PyMem_Free(given);
    PyMem_Free(ptr);
    PyMem_Free(output.data);
    if (graph == NULL && !PyErr_Occurred()) Py_RETURN_NONE;
    return graph;
}

/* drain(): all that was recorded as lists of Python: types, counts of operands, operands, and the rows of each column. */
static PyObject *recording_drain(Recording *self, PyObject *nothing) {
    Py_ssize_t nodes = COUNT(self->types, int16_t), count = COUNT(self->values, int32_t), other = 0;
    PyObject *types = PyList_New(nodes), *counts = PyList_New(nodes), *operands = PyList_New(count),
             *columns = PyTuple_New(self->cells->columns), *item;
    if (types == NULL || counts == NULL || operands == NULL || columns == NULL) goto failed;
    const int32_t *ends = (int32_t *)self->ends.data, *values = (int32_t *)self->values.data;
    for (Py_ssize_t n = 0; n < nodes; n++) {
        if ((item = PyLong_FromLong(((int16_t *)self->types.data)[n])) == NULL) goto failed;
        PyList_SET_ITEM(types, n, item);
        if ((item = PyLong_FromLong(ends[n] - (n ? ends[n - 1] : 0))) == NULL) goto failed;
        PyList_SET_ITEM(counts, n, item);
    }
    for (Py_ssize_t n = 0; n < count; n++) {
        if (values[n] == OTHER) item = Py_NewRef(PyList_GET_ITEM(self->others, other++));
        else item = new_value(values[n] == ZERO ? ZERO_VALUE : (self->serial << LOCAL_BITS) + values[n]);
        if (item == NULL) goto failed;
        PyList_SET_ITEM(operands, n, item);
    }
    for (int n = 0; n < self->cells->columns; n++) {
        if ((item = rows_as_list(&self->rows[n])) == NULL) goto failed;
        PyTuple_SET_ITEM(columns, n, item);
    }
    return Py_BuildValue("(NNNN)", types, counts, operands, columns);
failed:
    Py_XDECREF(types);
    Py_XDECREF(counts);
    Py_XDECREF(operands);
    Py_XDECREF(columns);
    return NULL;
}

static PyMethodDef recording_methods[] = {
    {"call", (PyCFunction)(void (*)(void))recording_call, METH_FASTCALL | METH_KEYWORDS,
     "Record one call of a cell; see Builder.call."},
    {"calls", (PyCFunction)recording_calls, METH_VARARGS, "Record calls of one cell from arrays."},
    {"begin", (PyCFunction)recording_begin, METH_O, "Forget all; the serial number of the next values."},
    {"finish", (PyCFunction)recording_finish, METH_O, "The graph, or None where Python is to make it."},
    {"drain", (PyCFunction)recording_drain, METH_NOARGS, "What was recorded, as lists."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject RecordingType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "edbatch_builder_core.Recording",
    .tp_basicsize = sizeof(Recording),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_dealloc = (destructor)recording_dealloc,
    .tp_traverse = (traverseproc)recording_traverse,
    .tp_clear = (inquiry)recording_clear,
    .tp_methods = recording_methods,
    .tp_doc = "The calls of one instance.",
};

/* recording(cells, signature, arrange, attribute_array) */
static PyObject *new_recording(PyObject *module, PyObject *arguments) {
    PyObject *cells, *signature, *arrange, *attribute_array;
    if (!PyArg_ParseTuple(arguments, "O!OOO", &CellsType, &cells, &signature, &arrange, &attribute_array)) return NULL;
    Recording *self = (Recording *)RecordingType.tp_alloc(&RecordingType, 0);
    if (self == NULL) return NULL;
    self->cells = (Cells *)Py_NewRef(cells);
    self->signature = Py_NewRef(signature);
    self->arrange = Py_NewRef(arrange);
    self->attribute_array = Py_NewRef(attribute_array);
    self->rows = PyMem_Calloc(self->cells->columns + 1, sizeof(Rows));
    self->others = PyList_New(0);
    if (self->rows == NULL || self->others == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    recording_clear_calls(self);
    return (PyObject *)self;
}

#endif
