#ifndef EDBATCH_WAITS_H
#define EDBATCH_WAITS_H
#include "tensors.h"
#include "values.h"

/* Waiting for values: driver.py, lazy.py and isolation.py -------------------------------------------------------------- */

/* Whether `function`, called with `argument` if there is one, returns `wanted`; -1 for an error. */
static int returns(PyObject *function, PyObject *argument, PyObject *wanted) {
    PyObject *found = argument == NULL ? PyObject_CallNoArgs(function) : PyObject_CallOneArg(function, argument);
    if (found == NULL) return -1;
    int same = found == wanted ? 1 : PyObject_RichCompareBool(found, wanted, Py_EQ);
    Py_DECREF(found);
    return same;
}

enum { GRAD, INFERENCE, AUTOCAST, INCLUDED, EXCLUDED, FUNCTIONS, FUNCTION_MODES, DISPATCH_MODES, TRANSFORMS, STATES };

/* Whether Python's functions say that the state of PyTorch is `state`; -1 for an error. */
static int is_said(PyObject *state) {
    if (!PyTuple_Check(state) || PyTuple_GET_SIZE(state) != STATES) {
        PyErr_SetString(PyExc_TypeError, "a State");
        return -1;
    }
    PyObject *autocast = PyTuple_GET_ITEM(state, AUTOCAST);
    if (!PyTuple_Check(autocast) || PyTuple_GET_SIZE(autocast) != 3) {
        PyErr_SetString(PyExc_TypeError, "a State");
        return -1;
    }
    const struct { PyObject *function, *argument, *wanted; } all[] = {
        {is_grad_enabled_, NULL, PyTuple_GET_ITEM(state, GRAD)},
        {is_inference_, NULL, PyTuple_GET_ITEM(state, INFERENCE)},
        {function_modes_, NULL, PyTuple_GET_ITEM(state, FUNCTION_MODES)},
        {dispatch_modes_, NULL, PyTuple_GET_ITEM(state, DISPATCH_MODES)},
        {functions_enabled_, NULL, PyTuple_GET_ITEM(state, FUNCTIONS)},
        {autocast_, str_cpu, PyTuple_GET_ITEM(autocast, 0)},
        {autocast_dtype_, str_cpu, PyTuple_GET_ITEM(autocast, 1)},
        {autocast_cached_, NULL, PyTuple_GET_ITEM(autocast, 2)},
    };
    PyObject *interpreters = PyObject_CallNoArgs(interpreters_);
    if (interpreters == NULL) return -1;
    int same = (interpreters != Py_None) == (PyTuple_GET_ITEM(state, TRANSFORMS) == Py_True);
    Py_DECREF(interpreters);
    for (size_t n = 0; n < sizeof(all) / sizeof(all[0]) && same == 1; n++)
        same = returns(all[n].function, all[n].argument, all[n].wanted);
    if (same == 1) same = returns(included_, NULL, PyTuple_GET_ITEM(state, INCLUDED));
    if (same == 1) same = returns(excluded_, NULL, PyTuple_GET_ITEM(state, EXCLUDED));
    return same;
}

/* The same, sooner for the state that was found last: what was read of it then is compared. */
static int is_state(PyObject *state) {
    static PyObject *found;
    static TorchState as_read;
    TorchState now;
    int read = read_state(&now);
    if (read && state == found && !memcmp(&now, &as_read, sizeof(now))) return 1;
    int same = is_said(state);
    if (read && same == 1) {
        Py_XSETREF(found, Py_NewRef(state));
        as_read = now;
    }
    return same;
}

static PyObject *is_now(PyObject *module, PyObject *state) {
    int same = is_state(state);
    return same < 0 ? NULL : PyBool_FromLong(same);
}

/* Driver.wait(): to the hub, if this is one of its functions, and the state is that in which it runs them. */
static PyObject *driver_wait(PyObject *self, PyObject *unused) {
    if (IS(self, Driver)) {
        PyObject *hub = SLOT(self, Driver__hub), *state = SLOT(self, Driver__state);
        int good = hub != Py_None && PyTuple_Check(state) && PyTuple_GET_SIZE(state) == STATES &&
                   PyTuple_GET_ITEM(state, TRANSFORMS) == Py_False;
        if (good) {
            PyObject *current = PyObject_CallNoArgs(SLOT(self, Driver__current)), *parent;
            if (current == NULL) return NULL;
            parent = PyObject_GetAttr(current, str_parent);
            Py_DECREF(current);
            if (parent == NULL) return NULL;
            Py_DECREF(parent);
            good = parent == hub;
        }
        if (good) good = is_state(state);
        if (good < 0) return NULL;
        if (good) {
            Py_INCREF(hub);
            PyObject *result = PyObject_CallMethodNoArgs(hub, str_switch);
            Py_DECREF(hub);
            if (result == NULL) return NULL;
            Py_DECREF(result);
            Py_RETURN_NONE;
        }
    }
    return PyObject_CallOneArg(wait_, self);
}

/* LazyTensor._answer(question) */
static PyObject *answered(PyObject *self, PyObject *question) {
    PyObject *recorder = NULL, *held = NULL, *spec = NULL, *value = NULL, *result = NULL;
    int outcome = UNUSUAL;
    if (!IS(self, LazyTensor)) goto done;
    if ((recorder = part_of(self, str_recorder)) == NULL) return NULL;
    if (!IS(recorder, Recorder) || SLOT(recorder, Recorder_finished) != Py_False) goto done;
    outcome = lazy_parts(self, recorder, &held, &spec);
    if (outcome != DONE) goto done;
    outcome = UNUSUAL;
    PyObject *asked = SLOT(recorder, Recorder_asked);
    if (held != Py_None || !IS(spec, TensorSpec) || !is_float(SLOT(spec, TensorSpec_dtype)) ||
        !PyList_CheckExact(asked) || !PyDict_CheckExact(SLOT(recorder, Recorder_answers)))
        goto done;
    if ((value = part_of(self, str_value)) == NULL) {
        outcome = ERROR;
        goto done;
    }
    if (PyLong_AsSsize_t(value) < PyLong_AsSsize_t(SLOT(recorder, Recorder_done))) {
        result = Py_NewRef(Py_None);
        outcome = DONE;
        goto done;
    }
    int modes = PyErr_Occurred() ? -1 : is_without_function_modes();
    if (modes != 1) {
        outcome = modes < 0 ? ERROR : UNUSUAL;
        goto done;
    }
    PyObject *one = PyTuple_Pack(2, question, self);
    outcome = one == NULL || PyList_Append(asked, one) < 0 ? ERROR : DONE;
    Py_XDECREF(one);
    if (outcome != DONE) goto done;
    PyObject *waited = PyObject_CallNoArgs(SLOT(recorder, Recorder_wait));
    outcome = waited == NULL ? ERROR : DONE;
    Py_XDECREF(waited);
    if (outcome != DONE) goto done;
    PyObject *answers = SLOT(recorder, Recorder_answers); /* others than before */
    if (!PyDict_CheckExact(answers)) {
        PyErr_SetString(PyExc_TypeError, "answers in a dict");
        outcome = ERROR;
        goto done;
    }
    result = PyDict_GetItemWithError(answers, value);
    if (result == NULL && PyErr_Occurred()) outcome = ERROR;
    else if (result == NULL) result = Py_NewRef(Py_None);
    else {
        Py_INCREF(result);
        if (PyDict_DelItem(answers, value) < 0) {
            Py_CLEAR(result);
            outcome = ERROR;
        }
    }
done:
    Py_XDECREF(recorder);
    Py_XDECREF(held);
    Py_XDECREF(spec);
    Py_XDECREF(value);
    if (outcome == UNUSUAL) {
        PyObject *arguments[] = {self, question};
        return PyObject_Vectorcall(answer_, arguments, 2, NULL);
    }
    return outcome == ERROR ? NULL : result;
}

/* The place of the largest number, or the smallest, as torch.argmax() and torch.argmin() have it. */
#define PLACE_OF_EXTREME(name, type) \
    static int64_t name(const type *row, int32_t count, int largest) { \
        int64_t place = 0; \
        for (int32_t n = 0; n < count; n++) { \
            if (row[n] != row[n]) return n; \
            if (largest ? row[n] > row[place] : row[n] < row[place]) place = n; \
        } \
        return place; \
    }
PLACE_OF_EXTREME(place_in_floats, float)
PLACE_OF_EXTREME(place_in_doubles, double)

/* extremes(asked, places): answer the questions of a list, all torch.argmax or torch.argmin, into an int64 array; the
 * values that they are about as a list, or None if one is of another kind or about a value that is not here. */
static PyObject *values_extremes(PyObject *own, PyObject *const *arguments, Py_ssize_t count) {
    Values *self = (Values *)own;
    Py_buffer places;
    if (count != 2 || !PyList_CheckExact(arguments[0])) return PyErr_Format(PyExc_TypeError, "a list, and an array");
    Py_ssize_t all = PyList_GET_SIZE(arguments[0]);
    if (PyObject_GetBuffer(arguments[1], &places, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE) < 0) return NULL;
    PyObject *values = PyList_New(all);
    int good = values != NULL && places.len == all * (Py_ssize_t)sizeof(int64_t);
    for (Py_ssize_t n = 0; n < all && good; n++) {
        PyObject *pair = PyList_GET_ITEM(arguments[0], n), *number;
        if (!(good = PyTuple_CheckExact(pair) && PyTuple_GET_SIZE(pair) == 2 &&
                     IS(PyTuple_GET_ITEM(pair, 1), LazyTensor)))
            break;
        PyObject *question = PyTuple_GET_ITEM(pair, 0);
        if (!(good = question == argmax_ || question == argmin_)) break;
        if ((number = part_of(PyTuple_GET_ITEM(pair, 1), str_value)) == NULL) {
            good = 0;
            break;
        }
        PyList_SET_ITEM(values, n, number);
        Py_ssize_t value = PyLong_AsSsize_t(number);
        if (!(good = value >= 0 && value < self->values.count && self->values.places[value].row)) break;
        Place *place = self->values.places + value;
        Arena *arena = self->arenas[place->group];
        const void *row = arena->data + (place->row - 1) * arena->strides[0];
        int32_t size = self->engine->arena_size[place->group];
        ((int64_t *)places.buf)[n] = self->engine->item == sizeof(double)
                                         ? place_in_doubles(row, size, question == argmax_)
                                         : place_in_floats(row, size, question == argmax_);
    }
    PyBuffer_Release(&places);
    if (good) return values;
    Py_XDECREF(values);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

/* drew(get_state, address, bytes, kept): whether PyTorch's random state, or that which Python has at an address, is another
 * than in the bytearray `kept`, which has it then. See random_state.py. */
static PyObject *drew(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    if (count != 4 || !PyByteArray_CheckExact(arguments[3])) return PyErr_Format(PyExc_TypeError, "drew takes 4 arguments");
    void *own = PyLong_AsVoidPtr(arguments[1]);
    Py_ssize_t bytes = PyLong_AsSsize_t(arguments[2]), length, changed;
    if (PyErr_Occurred()) return NULL;
    PyObject *state = PyObject_CallNoArgs(arguments[0]);
    DLTensor seen;
    if (state == NULL) return NULL;
    int outcome = plain_tensor(state, &seen, &length);
    if (outcome != DONE) {
        Py_DECREF(state);
        return outcome == ERROR ? NULL : PyErr_Format(PyExc_TypeError, "a random state in memory");
    }
    changed = PyByteArray_GET_SIZE(arguments[3]) != length + bytes;
    if (changed && PyByteArray_Resize(arguments[3], length + bytes) < 0) {
        Py_DECREF(state);
        return NULL;
    }
    char *kept = PyByteArray_AS_STRING(arguments[3]), *data = (char *)seen.data + seen.byte_offset;
    if (changed || memcmp(kept, data, length) || memcmp(kept + length, own, bytes)) {
        memcpy(kept, data, length);
        memcpy(kept + length, own, bytes);
        changed = 1;
    }
    Py_DECREF(state);
    return PyBool_FromLong(changed);
}

#endif
