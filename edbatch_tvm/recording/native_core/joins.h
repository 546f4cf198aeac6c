#ifndef EDBATCH_JOINS_H
#define EDBATCH_JOINS_H
#include "functions.h"

/* torch.cat() and torch.stack() while elements run: _joining() in torch_functions.py ---------------------------------- */

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    PyObject *function, *own; /* the Python function, which has all attributes but those that are set here */
    int joined;
} Join;
static PyTypeObject JoinType;
static int joins_in_use;

/* Tensors joined along the last of several dimensions, recorded as an operator: _joining() in functions.py. */
static int last_joined(PyObject *tensors, PyObject *dim, PyObject **result) {
    if (!PyLong_CheckExact(dim) || (!PyTuple_CheckExact(tensors) && !PyList_CheckExact(tensors))) return UNUSUAL;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(tensors), at = PyLong_AsSsize_t(dim);
    if (at == -1 && PyErr_Occurred()) return refused();
    PyObject *recorded = NULL;
    for (Py_ssize_t n = 0; n < count && recorded == NULL; n++)
        if (IS(PySequence_Fast_GET_ITEM(tensors, n), LazyTensor)) recorded = PySequence_Fast_GET_ITEM(tensors, n);
    if (recorded == NULL) return UNUSUAL;
    PyObject *spec = part_of(recorded, str_spec);
    if (spec == NULL) return ERROR;
    PyObject *shape = IS(spec, TensorSpec) ? SLOT(spec, TensorSpec_shape) : Py_None;
    Py_ssize_t rank = PyTuple_Check(shape) ? PyTuple_GET_SIZE(shape) : 0;
    int last = rank > 1 && (at == -1 || at == rank - 1) && is_float(SLOT(spec, TensorSpec_dtype));
    Py_DECREF(spec);
    for (Py_ssize_t n = 0; n < count && last; n++) {
        PyObject *one = PySequence_Fast_GET_ITEM(tensors, n);
        last = IS(one, LazyTensor) || IS(one, Tensor);
    }
    if (!last) return UNUSUAL;
    PyObject *list = PySequence_List(tensors), *arguments = list == NULL ? NULL : PyTuple_Pack(2, list, dim);
    Py_XDECREF(list);
    if (arguments == NULL) return ERROR;
    int outcome = operator_recorded(aten_cat_, Py_None, arguments, NULL, result);
    Py_DECREF(arguments);
    return outcome == ERROR ? refused() : outcome;
}

static PyObject *join_call(PyObject *self, PyObject *const *arguments, size_t flags, PyObject *names) {
    Join *join = (Join *)self;
    Py_ssize_t count = PyVectorcall_NARGS(flags);
    int first = names == NULL || !PyTuple_GET_SIZE(names);
    if (!first && PyTuple_GET_SIZE(names) == 1)
        first = PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "dim") == 0 && arguments[count] == zero;
    if (joins_in_use && count == 1 && first) {
        PyObject *given[] = {arguments[0], join->joined ? Py_True : Py_False};
        PyObject *rows = rows_of_values(NULL, given, 2);
        if (rows != Py_None) return rows;
        Py_DECREF(rows);
    } else if (joins_in_use && join->joined && count + (names == NULL ? 0 : PyTuple_GET_SIZE(names)) == 2) {
        int named = count == 1 && (PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "dim") == 0 ||
                                   PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "axis") == 0);
        PyObject *result;
        int outcome = count == 2 || named ? last_joined(arguments[0], arguments[1], &result) : UNUSUAL;
        if (outcome == ERROR) return NULL;
        if (outcome == DONE) return result;
    }
    return PyObject_Vectorcall(join->function, arguments, flags, names);
}

static PyObject *join_attribute(PyObject *self, PyObject *name) {
    PyObject *found = PyObject_GenericGetAttr(self, name);
    if (found != NULL || !PyErr_ExceptionMatches(PyExc_AttributeError)) return found;
    PyErr_Clear();
    return PyObject_GetAttr(((Join *)self)->function, name);
}

static int join_traverse(Join *self, visitproc visit, void *arg) {
    Py_VISIT(self->function);
    Py_VISIT(self->own);
    return 0;
}

static int join_clear(Join *self) {
    Py_CLEAR(self->function);
    Py_CLEAR(self->own);
    return 0;
}

static void join_dealloc(Join *self) {
    PyObject_GC_UnTrack(self);
    join_clear(self);
    PyObject_GC_Del(self);
}

static PyTypeObject JoinType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "edbatch_recording_core.Join",
    .tp_basicsize = sizeof(Join),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Join, call),
    .tp_call = PyVectorcall_Call,
    .tp_getattro = join_attribute,
    .tp_setattro = PyObject_GenericSetAttr,
    .tp_dictoffset = offsetof(Join, own),
    .tp_traverse = (traverseproc)join_traverse,
    .tp_clear = (inquiry)join_clear,
    .tp_dealloc = (destructor)join_dealloc,
};

/* join(function, joined): what takes the place of a function that joins tensors. */
static PyObject *new_join(PyObject *module, PyObject *arguments) {
    PyObject *function;
    int joined;
    if (!PyArg_ParseTuple(arguments, "Op", &function, &joined)) return NULL;
    Join *made = PyObject_GC_New(Join, &JoinType);
    if (made == NULL) return NULL;
    made->call = join_call;
    made->function = Py_NewRef(function);
    made->own = NULL;
    made->joined = joined;
    PyObject_GC_Track(made);
    return (PyObject *)made;
}

/* use_joins(whether): let joins be compiled code, or Python. */
static PyObject *use_joins(PyObject *module, PyObject *whether) {
    joins_in_use = PyObject_IsTrue(whether);
    Py_RETURN_NONE;
}

#endif
