#ifndef EDBATCH_FUNCTIONS_H
#define EDBATCH_FUNCTIONS_H
#include "calls.h"
#include "indexed.h"

/* Functions of PyTorch on recorded tensors: LazyTensor.__torch_function__() in lazy.py -------------------------------
 *
 * Those that are an operator of their own (OPERATORS) or that make views (VIEWS); the others are Python's.
 */

/* The first recorded tensor among arguments or in a list at their beginning, borrowed; NULL if there is none. */
static PyObject *first_recorded(PyObject *arguments) {
    PyObject *first = PyTuple_GET_SIZE(arguments) ? PyTuple_GET_ITEM(arguments, 0) : NULL;
    if (first != NULL && PyList_CheckExact(first)) {
        for (Py_ssize_t n = 0; n < PyList_GET_SIZE(first); n++)
            if (IS(PyList_GET_ITEM(first, n), LazyTensor)) return PyList_GET_ITEM(first, n);
        return NULL;
    }
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(arguments); n++)
        if (IS(PyTuple_GET_ITEM(arguments, n), LazyTensor)) return PyTuple_GET_ITEM(arguments, n);
    return NULL;
}

/* The names of arguments and, after `count` others, their values; without options that are off. */
static int named_arguments(PyObject *named, PyObject **given, Py_ssize_t *count, Py_ssize_t room, PyObject **names) {
    PyObject *name, *value, *kept[8];
    Py_ssize_t place = 0, many = 0;
    while (PyDict_Next(named, &place, &name, &value)) {
        int in_place = PyUnicode_CompareWithASCIIString(name, "inplace") == 0;
        int out = PyUnicode_CompareWithASCIIString(name, "out") == 0;
        int training = PyUnicode_CompareWithASCIIString(name, "training") == 0;
        if ((in_place || training) && value != Py_False && value != Py_None) return UNUSUAL;
        if (out && value != Py_None) return UNUSUAL;
        if (in_place || out) continue;
        if (many == 8 || *count == room) return UNUSUAL;
        kept[many++] = name;
        given[(*count)++] = value;
    }
    if ((*names = PyTuple_New(many)) == NULL) return ERROR;
    for (Py_ssize_t n = 0; n < many; n++) PyTuple_SET_ITEM(*names, n, Py_NewRef(kept[n]));
    return DONE;
}

/* Record a function as an operator; `canonical` has the same arguments where none is given by name. */
static int operator_recorded(PyObject *function, PyObject *canonical, PyObject *arguments, PyObject *named,
                             PyObject **result) {
    PyObject *tensor = first_recorded(arguments), *recorder, *given[24], *names, *key, *site;
    Py_ssize_t count = PyTuple_GET_SIZE(arguments);
    if (tensor == NULL || count > 16) return UNUSUAL;
    if ((recorder = part_of(tensor, str_recorder)) == NULL) return ERROR;
    int outcome = UNUSUAL;
    if (!IS(recorder, Recorder) || SLOT(recorder, Recorder_finished) != Py_False ||
        !PyDict_CheckExact(SLOT(recorder, Recorder_operators)))
        goto done;
    int autocast = autocast_is_on();
    if (autocast) {
        outcome = autocast < 0 ? ERROR : UNUSUAL;
        goto done;
    }
    for (Py_ssize_t n = 0; n < count; n++) given[n] = PyTuple_GET_ITEM(arguments, n);
    int by_name = named != NULL && PyDict_GET_SIZE(named) > 0;
    names = NULL;
    if (by_name) outcome = named_arguments(named, given, &count, 24, &names);
    else outcome = (names = PyTuple_New(0)) == NULL ? ERROR : DONE;
    if (outcome != DONE) goto done;
    key = PyTuple_Pack(2, by_name || canonical == Py_None ? function : canonical, names);
    Py_DECREF(names);
    site = key == NULL ? NULL : PyDict_GetItemWithError(SLOT(recorder, Recorder_operators), key);
    Py_XDECREF(key);
    outcome = site != NULL ? DONE : PyErr_Occurred() ? ERROR : UNUSUAL;
    if (outcome != DONE) goto done;
    Py_INCREF(site);
    outcome = record(recorder, site, given, count, result);
    if (outcome == OTHERWISE) {
        Py_DECREF(*result);
        outcome = UNUSUAL; /* Python's way follows the same steps */
    }
    Py_DECREF(site);
done:
    Py_DECREF(recorder);
    return outcome;
}

/* Whether a question about numbers is one that is recorded: about more than one, of a value that is not computed. */
static int is_open(PyObject *arguments) {
    PyObject *tensor = first_recorded(arguments), *held = NULL, *spec = NULL, *value = NULL, *recorder;
    if (tensor == NULL) return UNUSUAL;
    if ((recorder = part_of(tensor, str_recorder)) == NULL) return ERROR;
    int outcome = IS(recorder, Recorder) ? lazy_parts(tensor, recorder, &held, &spec) : UNUSUAL;
    if (outcome == DONE && (held != Py_None || !IS(spec, TensorSpec))) outcome = UNUSUAL;
    if (outcome == DONE && (value = part_of(tensor, str_value)) == NULL) outcome = ERROR;
    if (outcome == DONE && (PyLong_AsSsize_t(SLOT(spec, TensorSpec_size)) < 2 ||
                            PyLong_AsSsize_t(value) < PyLong_AsSsize_t(SLOT(recorder, Recorder_done))))
        outcome = PyErr_Occurred() ? ERROR : UNUSUAL;
    Py_DECREF(recorder);
    Py_XDECREF(held);
    Py_XDECREF(spec);
    Py_XDECREF(value);
    return outcome;
}

/* torch_function(function, types, arguments, named) */
static PyObject *torch_function(PyObject *module, PyObject *const *given, Py_ssize_t count) {
    if (count >= 3 && PyTuple_CheckExact(given[2])) {
        PyObject *function = given[0], *arguments = given[2], *result;
        PyObject *named = count > 3 && given[3] != Py_None ? given[3] : NULL, *how;
        int outcome = UNUSUAL;
        if (named == NULL || PyDict_CheckExact(named)) {
            if ((how = PyDict_GetItemWithError(OPERATORS_, function)) != NULL) {
                int asked = PySet_Contains(ASKED_, function);
                outcome = asked < 0 ? ERROR : asked ? is_open(arguments) : DONE;
                if (outcome == DONE) outcome = operator_recorded(function, how, arguments, named, &result);
            }
            else if (!PyErr_Occurred() && PyTuple_GET_SIZE(arguments) &&
                     IS(PyTuple_GET_ITEM(arguments, 0), LazyTensor)) {
                PyObject *tensor = PyTuple_GET_ITEM(arguments, 0);
                int several = named != NULL && PyDict_GET_SIZE(named);
                Py_ssize_t many = PyTuple_GET_SIZE(arguments);
                if ((how = PyDict_GetItemWithError(VIEWS_, function)) != NULL) {
                    outcome = viewed(how, arguments, several ? named : NULL, &result);
                    if (outcome == UNUSUAL && how == at_index_ && many == 2 && !several)
                        outcome = rows_chosen(tensor, PyTuple_GET_ITEM(arguments, 1), &result);
                } else if (!PyErr_Occurred() && function == setitem_ && many == 3 && !several) {
                    outcome = rows_written(tensor, PyTuple_GET_ITEM(arguments, 1), PyTuple_GET_ITEM(arguments, 2));
                    if (outcome == DONE) result = Py_NewRef(Py_None);
                }
            }
            if (PyErr_Occurred()) outcome = ERROR;
        }
        if (outcome == DONE) return result;
        if (outcome == ERROR && refused() == ERROR) return NULL;
    }
    if (count > 4 || count < 1) return PyErr_Format(PyExc_TypeError, "__torch_function__ of %zd arguments", count);
    PyObject *all[6] = {LazyTensor_};
    memcpy(all + 1, given, count * sizeof(PyObject *));
    return PyObject_Vectorcall(torch_function_, all, count + 1, NULL);
}

#endif
