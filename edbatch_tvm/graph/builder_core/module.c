/* The builder's work in C: recording calls (rows.h, recording.h, finishing.h), and graphs from arrays (minibatch.h),
 * which both make packed graphs (packing.h) of cells (cells.h). build.py and instances_from_arrays.py do the same in Python, and do it wherever
 * these functions return None: so Python alone says which errors there are. */
#include "assembly.h"
#include "minibatch.h"
#include "finishing.h"

/* setup(InstanceGraph, Value, numpy.integer): remember the classes. */
static PyObject *setup(PyObject *module, PyObject *arguments) {
    PyObject *graph, *value, *integer;
    if (!PyArg_ParseTuple(arguments, "O!O!O!", &PyType_Type, &graph, &PyType_Type, &value, &PyType_Type, &integer))
        return NULL;
    if (((PyTypeObject *)value)->tp_base != &PyLong_Type ||
        ((PyTypeObject *)value)->tp_basicsize != PyLong_Type.tp_basicsize)
        return PyErr_Format(PyExc_TypeError, "Value is more than an int");
    Py_XSETREF(InstanceGraph_, (PyTypeObject *)Py_NewRef(graph));
    Py_XSETREF(Value_, (PyTypeObject *)Py_NewRef(value));
    Py_XSETREF(Integer_, (PyTypeObject *)Py_NewRef(integer));
#define NAME(name) \
    if (str_##name == NULL && (str_##name = PyUnicode_InternFromString(#name)) == NULL) return NULL;
    NAME(signature) NAME(checked) NAME(serial) NAME(merge_row) NAME(packed)
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"setup", setup, METH_VARARGS, "Remember classes."},
    {"cells", new_cells, METH_VARARGS, "What is known of the cells of a signature."},
    {"recording", new_recording, METH_VARARGS, "What records the calls of one instance after the other."},
    {"assemble", assemble, METH_VARARGS, "The arrays of a minibatch from the calls of each cell."},
    {"instances", instances, METH_VARARGS, "The instances of a minibatch that is given as arrays."},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "edbatch_builder_core", .m_size = -1,
                                        .m_methods = functions};

PyMODINIT_FUNC PyInit_edbatch_builder_core(void) {
    if (PyType_Ready(&CellsType) < 0 || PyType_Ready(&RecordingType) < 0) return NULL;
    return PyModule_Create(&definition);
}
