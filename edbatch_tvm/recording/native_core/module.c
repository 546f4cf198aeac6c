/* The hot path of recording: calls of cells (calls.h, rows.h, deferred.h), the tensors they return, rows of states
 * (tensors.h) and views (views.h), functions of PyTorch (functions.h), tensors from outside (outside.h); the state of
 * PyTorch (state.h), waiting for values (waits.h); and rounds, in which everything that is recorded is computed (values.h,
 * rounds.h); digests of memory (digests.h).
 *
 * Every function does what a Python function does, for what models do often; anything else, it gives to that function
 * before it has changed anything. So Python says what is right and which errors there are, and runs where these
 * files cannot be compiled. core.py compiles them and puts the functions in their places.
 *
 * Objects are those of Python. Attributes of classes with __slots__ are read at their offsets, which setup() takes from
 * the descriptors, after a check of the exact class (objects.h). Tensors are read through DLPack's exchange interface,
 * the only one of PyTorch's that is C and stable; its state is read where state_addresses.py says, if that has been checked.
 */
#include "digests.h"
#include "functions.h"
#include "joins.h"
#include "rounds.h"
#include "waits.h"

/* Setting up -------------------------------------------------------------------------------------------- */

static PyMethodDef method_of_recorder = {"call", (PyCFunction)(void (*)(void))recorder_call,
                                         METH_FASTCALL | METH_KEYWORDS, "Record one call of a cell."};
static PyMethodDef method_of_cell = {"__call__", (PyCFunction)(void (*)(void))cell_called,
                                     METH_FASTCALL | METH_KEYWORDS, "Record one call."};
static PyMethodDef method_of_outside = {"number", outside_number, METH_O,
                                        "The number of a tensor with what is in it now."};

static PyMethodDef method_of_settling = {"settle", recorder_settle, METH_NOARGS, "Record what is to be recorded later."};
static PyMethodDef method_of_driver = {"wait", driver_wait, METH_NOARGS, "Come back when a value is computed."};
static PyMethodDef method_of_tensor = {"_answer", answered, METH_O, "What a question about all elements is answered."};

static PyMethodDef method_of_parameter = {"__getitem__", parameter_row, METH_O, "Rows of it."};

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
    Py_XSETREF(zero, PyLong_FromLong(0));
    if (PyErr_Occurred()) return NULL;
    find_exchange();
    PyObject *call = PyDescr_NewMethod((PyTypeObject *)Recorder_, &method_of_recorder);
    PyObject *cell = PyDescr_NewMethod((PyTypeObject *)CellCall_, &method_of_cell);
    PyObject *number = PyDescr_NewMethod((PyTypeObject *)Outside_, &method_of_outside);
    PyObject *wait = PyDescr_NewMethod((PyTypeObject *)Driver_, &method_of_driver);
    PyObject *answer = PyDescr_NewMethod((PyTypeObject *)LazyTensor_, &method_of_tensor);
    PyObject *row = PyDescr_NewMethod((PyTypeObject *)RecordedParameter_, &method_of_parameter);
    PyObject *settle = PyDescr_NewMethod((PyTypeObject *)Recorder_, &method_of_settling);
    PyObject *made = NULL;
    if (call && cell && number && wait && answer && row && settle)
        made = Py_BuildValue("{sOsOsOsOsOsOsO}", "call", call, "cell_call", cell, "number", number, "wait", wait,
                             "answer", answer, "row_of_parameter", row, "settle", settle);
    Py_XDECREF(settle);
    Py_XDECREF(row);
    Py_XDECREF(wait);
    Py_XDECREF(answer);
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
    {"know_state", know_state, METH_VARARGS, "Where PyTorch says what its state is."},
    {"torch_state", torch_state, METH_NOARGS, "What of the state is read there."},
    {"entered", entered, METH_O, "Tensors in this thing have been seen by PyTorch's C++ code."},
    {"returned_of", (PyCFunction)(void (*)(void))returned_of, METH_FASTCALL, "See call_fast_paths.py."},
    {"torch_function", (PyCFunction)(void (*)(void))torch_function, METH_FASTCALL, "See lazy.py."},
    {"drew", (PyCFunction)(void (*)(void))drew, METH_FASTCALL, "Whether random numbers were drawn."},
    {"digest", digest, METH_O, "A number for what lies in memory."},
    {"join", new_join, METH_VARARGS, "What takes the place of torch.cat() or torch.stack()."},
    {"use_joins", use_joins, METH_O, "Let these be compiled code, or Python."},
    {"engine", engine, METH_VARARGS, "What is known of a compiled model."},
    {"nodes_of", nodes_of, METH_O, "How many nodes instance graphs have together."},
    {"outputs_of", (PyCFunction)(void (*)(void))outputs_of, METH_FASTCALL, "The declared outputs of instance graphs."},
    {"values", values_of_engine, METH_O, "The values of a minibatch, for an engine."},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "edbatch_recording_core", .m_size = -1,
                                        .m_methods = functions};

PyMODINIT_FUNC PyInit_edbatch_recording_core(void) {
    if (PyType_Ready(&ReturnedType) < 0 || PyType_Ready(&SpareType) < 0 || PyType_Ready(&SeenType) < 0 ||
        PyType_Ready(&ArenaType) < 0 || PyType_Ready(&EngineType) < 0 || PyType_Ready(&ValuesType) < 0 ||
        PyType_Ready(&JoinType) < 0 || PyType_Ready(&DeferredType) < 0)
        return NULL;
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL && PyModule_AddIntMacro(module, MOST_INPUTS) < 0) Py_CLEAR(module);
    return module;
}
