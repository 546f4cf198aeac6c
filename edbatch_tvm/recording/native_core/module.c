/* The hot path of recording: calls of cells (calls.h), the tensors they return and rows of states (tensors.h), tensors
 * from outside (outside.h); and rounds, in which everything that is recorded is computed (values.h, rounds.h).
 *
 * Every function does what a Python function does, for what models do often; anything else, it gives to that function
 * before it has changed anything. So Python says what is right and which errors there are, and runs where these
 * files cannot be compiled. core.py compiles them and puts the functions in their places.
 *
 * Objects are those of Python. Attributes of classes with __slots__ are read at their offsets, which setup() takes from
 * the descriptors, after a check of the exact class (objects.h). Tensors are read through DLPack's exchange interface,
 * the only one of PyTorch's that is C and stable.
 */
#include "calls.h"
#include "rounds.h"

/* The state of PyTorch: is_now() in isolation.py ---------------------------------------------------------- */

/* Whether `function`, called with `argument` if there is one, returns `wanted`; -1 for an error. */
static int returns(PyObject *function, PyObject *argument, PyObject *wanted) {
    PyObject *found = argument == NULL ? PyObject_CallNoArgs(function) : PyObject_CallOneArg(function, argument);
    if (found == NULL) return -1;
    int same = PyObject_RichCompareBool(found, wanted, Py_EQ);
    Py_DECREF(found);
    return same;
}

static PyObject *is_now(PyObject *module, PyObject *state) {
    enum { GRAD, INFERENCE, AUTOCAST, INCLUDED, EXCLUDED, FUNCTIONS, FUNCTION_MODES, DISPATCH_MODES, TRANSFORMS,
           COUNT };
    if (!PyTuple_Check(state) || PyTuple_GET_SIZE(state) != COUNT) return PyErr_Format(PyExc_TypeError, "a State");
    PyObject *autocast = PyTuple_GET_ITEM(state, AUTOCAST);
    if (!PyTuple_Check(autocast) || PyTuple_GET_SIZE(autocast) != 3) return PyErr_Format(PyExc_TypeError, "a State");
    const struct { PyObject *function, *argument, *wanted; } all[] = {
        {is_grad_enabled_, NULL, PyTuple_GET_ITEM(state, GRAD)},
        {is_inference_, NULL, PyTuple_GET_ITEM(state, INFERENCE)},
        {function_modes_, NULL, PyTuple_GET_ITEM(state, FUNCTION_MODES)},
        {dispatch_modes_, NULL, PyTuple_GET_ITEM(state, DISPATCH_MODES)},
        {functions_enabled_, NULL, PyTuple_GET_ITEM(state, FUNCTIONS)},
        {autocast_, str_cpu, PyTuple_GET_ITEM(autocast, 0)},
        {autocast_dtype_, str_cpu, PyTuple_GET_ITEM(autocast, 1)},
        {autocast_cached_, NULL, PyTuple_GET_ITEM(autocast, 2)},
        {included_, NULL, PyTuple_GET_ITEM(state, INCLUDED)},
        {excluded_, NULL, PyTuple_GET_ITEM(state, EXCLUDED)},
    };
    PyObject *interpreters = PyObject_CallNoArgs(interpreters_);
    if (interpreters == NULL) return NULL;
    int same = (interpreters != Py_None) == (PyTuple_GET_ITEM(state, TRANSFORMS) == Py_True);
    Py_DECREF(interpreters);
    for (size_t n = 0; n < sizeof(all) / sizeof(all[0]) && same == 1; n++)
        same = returns(all[n].function, all[n].argument, all[n].wanted);
    return same < 0 ? NULL : PyBool_FromLong(same);
}

/* Setting up -------------------------------------------------------------------------------------------- */

static PyMethodDef method_of_recorder = {"call", (PyCFunction)(void (*)(void))recorder_call,
                                         METH_FASTCALL | METH_KEYWORDS, "Record one call of a cell."};
static PyMethodDef method_of_cell = {"__call__", (PyCFunction)(void (*)(void))cell_called,
                                     METH_FASTCALL | METH_KEYWORDS, "Record one call."};
static PyMethodDef method_of_outside = {"number", outside_number, METH_O,
                                        "The number of a tensor with what is in it now."};

static int find_slot(PyObject *owner, const char *name, Py_ssize_t *place) {
    PyObject *found = PyObject_GetAttrString(owner, name);
    if (found == NULL) return -1;
    PyMemberDescrObject *member = (PyMemberDescrObject *)found;
    int good = Py_TYPE(found) == &PyMemberDescr_Type && member->d_member->type == T_OBJECT_EX &&
               (PyObject *)PyDescr_TYPE(found) == owner;
    *place = good ? member->d_member->offset : 0;
    Py_DECREF(found);
    if (!good) PyErr_Format(PyExc_TypeError, "%s of %R is no slot", name, owner);
    return good ? 0 : -1;
}

static void find_exchange(void) {
    PyObject *capsule = PyObject_GetAttrString(Tensor_, "__dlpack_c_exchange_api__");
    ExchangeHeader *header = capsule == NULL ? NULL : PyCapsule_GetPointer(capsule, "dlpack_exchange_api");
    PyErr_Clear(); /* an earlier PyTorch: Python reads its tensors */
    while (header != NULL && header->version.major > DL_MAJOR) header = header->prev;
    int known = header != NULL && header->version.major == DL_MAJOR;
    tensor_from_object = known ? ((Exchange *)header)->tensor_from_object : NULL;
    Py_XDECREF(capsule);
}

/* setup(names): remember the objects of Python that are used here; the methods that replace theirs, by name. */
static PyObject *setup(PyObject *module, PyObject *names) {
    if (!PyDict_Check(names)) return PyErr_Format(PyExc_TypeError, "names in a dict");
#define TAKE(name) \
    Py_XSETREF(name##_, Py_XNewRef(PyDict_GetItemString(names, #name))); \
    if (name##_ == NULL) return PyErr_Format(PyExc_KeyError, #name);
#define TAKE_CLASS(name) \
    TAKE(name) \
    if (!PyType_Check(name##_)) return PyErr_Format(PyExc_TypeError, #name);
#define FIND_SLOT(owner, name) \
    if (find_slot(owner##_, #name, &owner##_##name) < 0) return NULL;
#define MAKE_NAME(name) \
    if (str_##name == NULL && (str_##name = PyUnicode_InternFromString(#name)) == NULL) return NULL;
    CLASSES(TAKE_CLASS)
    OBJECTS(TAKE)
    SLOTS(FIND_SLOT)
    NAMES(MAKE_NAME)
    for (int n = 0; n < 8; n++) Py_XSETREF(number_of_tuple[n], Py_BuildValue("(Oi)", str_tuple, n));
    for (int n = 0; n < 2; n++) Py_XSETREF(few[n], Py_BuildValue("(Oi)", FEW_, n));
    Py_XSETREF(listed_one, Py_BuildValue("(OiO)", str_listed, 1, Py_False));
    if (PyErr_Occurred()) return NULL;
    find_exchange();
    PyObject *call = PyDescr_NewMethod((PyTypeObject *)Recorder_, &method_of_recorder);
    PyObject *cell = PyDescr_NewMethod((PyTypeObject *)CellCall_, &method_of_cell);
    PyObject *number = PyDescr_NewMethod((PyTypeObject *)Outside_, &method_of_outside);
    PyObject *made = NULL;
    if (call && cell && number)
        made = Py_BuildValue("{sOsOsO}", "call", call, "cell_call", cell, "number", number);
    Py_XDECREF(call);
    Py_XDECREF(cell);
    Py_XDECREF(number);
    return made;
}

static PyMethodDef functions[] = {
    {"setup", setup, METH_O, "Remember the objects of Python; the methods that replace theirs, by name."},
    {"rows_of_values", (PyCFunction)(void (*)(void))rows_of_values, METH_FASTCALL, "See lazy.py."},
    {"minibatch_ended", minibatch_ended, METH_NOARGS, "Let go what tensors of a minibatch held."},
    {"is_now", is_now, METH_O, "See isolation.py."},
    {"entered", entered, METH_O, "Tensors in this thing have been seen by PyTorch's C++ code."},
    {"returned_of", (PyCFunction)(void (*)(void))returned_of, METH_FASTCALL, "See call_fast_paths.py."},
    {"engine", engine, METH_VARARGS, "What is known of a compiled model."},
    {"values", values_of_engine, METH_O, "The values of a minibatch, for an engine."},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "edbatch_recording_core", .m_size = -1,
                                        .m_methods = functions};

PyMODINIT_FUNC PyInit_edbatch_recording_core(void) {
    if (PyType_Ready(&ReturnedType) < 0 || PyType_Ready(&SpareType) < 0 || PyType_Ready(&SeenType) < 0 ||
        PyType_Ready(&ArenaType) < 0 || PyType_Ready(&EngineType) < 0 || PyType_Ready(&ValuesType) < 0)
        return NULL;
    return PyModule_Create(&definition);
}
