/* Objects of Python that the core knows by name, attributes at their offsets, and outcomes. */
#ifndef EDBATCH_OBJECTS_H
#define EDBATCH_OBJECTS_H
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <stdint.h>
#include <string.h>

/* What setup() is given, by name. */
#define CLASSES(X) \
    X(LazyTensor) X(Tensor) X(Recorder) X(CellCall) X(Site) X(TensorSpec) X(RowsSpec) X(Storage) X(Outside) \
    X(Driver) X(RowByRow) X(RowOperation) X(Table) X(RecordedParameter)
#define OBJECTS(X) \
    X(wrapper) X(guard) X(is_inference) X(resolved) X(rows_of) X(call) X(cell_call) X(number) X(is_neg) X(is_grad_enabled) \
    X(is_any_autocast) X(function_modes) X(dispatch_modes) X(functions_enabled) X(interpreters) X(autocast) \
    X(autocast_dtype) X(autocast_cached) X(included) X(excluded) X(float32) X(float64) X(INTEGER) X(INDEX) X(FEW) \
    X(Written) X(refusals) X(wait) X(answer) X(row_of_parameter) X(argmax) X(argmin) X(torch_function) X(OPERATORS) X(VIEWS) \
    X(GEOMETRIES) X(at_index) X(setitem) X(flattened) X(pick) X(ASKED) \
    X(aten_cat) X(spec_of) X(rows_in) X(SPECS) X(fused_node)
#define SLOTS(X) \
    X(Recorder, types) X(Recorder, ends) X(Recorder, operands) X(Recorder, attributes) X(Recorder, recorded) \
    X(Recorder, finished) X(Recorder, outside) X(Recorder, done) X(Recorder, wait) \
    X(Recorder, asked) X(Recorder, answers) X(Recorder, operators) X(Recorder, picked) X(Recorder, modules) X(Recorder, weights) \
    X(Recorder, tape) X(Recorder, fused) X(Recorder, at_once) \
    X(Driver, _hub) X(Driver, _state) X(Driver, _current) X(CellCall, recorder) X(CellCall, site) X(Site, steps) \
    X(Site, integers_vary) X(Site, owner) X(Site, reads) X(Site, taken_apart) X(TensorSpec, shape) X(TensorSpec, dtype) \
    X(TensorSpec, size) X(TensorSpec, geometry) X(TensorSpec, rest) X(TensorSpec, rows) X(TensorSpec, spare) \
    X(RowsSpec, stacked) X(RowsSpec, row) X(RowsSpec, at) X(RowByRow, by_rows) X(RowByRow, node) X(RowByRow, operation) X(RowByRow, order) \
    X(RowOperation, specs) X(Storage, _rows) \
    X(Storage, row) X(Storage, listed) X(Storage, whole) X(Storage, spec) \
    X(Outside, specs) X(Outside, bits) X(Outside, known_by_size) X(Outside, seen) X(Outside, table) X(Outside, row) \
    X(Outside, tables) X(Table, address) X(Table, bytes) X(Table, capacity) X(Table, count)
#define NAMES(X) \
    X(recorder) X(value) X(spec) X(held) X(geometry) X(of) X(otherwise) X(_written) X(tuple) X(list) X(listed) \
    X(stack) X(constant) X(attribute) X(entered) X(OWN) X(cpu) X(dtype) X(shape) X(requires_grad) X(_tables) X(parent) \
    X(switch) X(float) X(inplace) X(out) X(training) X(numbers) X(_rows) X(_trains) X(_version)

#define DECLARE(name) static PyObject *name##_;
#define DECLARE_SLOT(owner, name) static Py_ssize_t owner##_##name;
#define DECLARE_NAME(name) static PyObject *str_##name;
CLASSES(DECLARE) OBJECTS(DECLARE) SLOTS(DECLARE_SLOT) NAMES(DECLARE_NAME)
static PyObject *few[2], *listed_one, *number_of_tuple[8], *zero;

#define IS(object, name) ((PyObject *)Py_TYPE(object) == name##_)

/* An attribute, borrowed; None if it was never set. */
static inline PyObject *SLOT(PyObject *object, Py_ssize_t place) {
    PyObject *found = *(PyObject **)((char *)object + place);
    return found == NULL ? Py_None : found;
}

/* Outcomes of what may leave a call to Python; an error is one as in Python, with the exception set. */
enum { ERROR = -1, UNUSUAL = 0, DONE = 1, OTHERWISE = 2 };

/* An error, unless it is one of those that Python's own way begins with, too. */
static int refused(void) {
    if (!PyErr_ExceptionMatches(refusals_)) return ERROR;
    PyErr_Clear();
    return UNUSUAL;
}

/* The attributes of a recorded tensor, borrowed: no class has a say in them, so nobody looks there first. */
static PyObject *own_of(PyObject *tensor) {
    PyObject **place = _PyObject_GetDictPtr(tensor), *own = place == NULL ? NULL : *place;
    if (own != NULL) return own;
    own = PyObject_GenericGetDict(tensor, NULL); /* the first one is made, and the tensor holds it */
    Py_XDECREF(own);
    return own;
}

/* One of them, a new reference. */
static PyObject *part_of(PyObject *tensor, PyObject *name) {
    PyObject *own = own_of(tensor), *found = own == NULL ? NULL : PyDict_GetItemWithError(own, name);
    if (found != NULL) return Py_NewRef(found);
    return PyErr_Occurred() ? NULL : PyObject_GenericGetAttr(tensor, name);
}

static int set_part(PyObject *tensor, PyObject *name, PyObject *value) {
    PyObject *own = own_of(tensor);
    return own == NULL ? -1 : PyDict_SetItem(own, name, value);
}

static int is_float(PyObject *dtype) { return dtype == float32_ || dtype == float64_; }

static void set_slot(PyObject *object, Py_ssize_t place, PyObject *stolen) {
    PyObject **slot = (PyObject **)((char *)object + place), *old = *slot;
    *slot = stolen;
    Py_XDECREF(old);
}

#endif
