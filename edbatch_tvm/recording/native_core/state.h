#ifndef EDBATCH_STATE_H
#define EDBATCH_STATE_H
#include "objects.h"
#ifdef __linux__
#include <dlfcn.h>
#endif

/* The state of PyTorch in this thread: isolation.py ---------------------------------------------------------------
 *
 * PyTorch's Python functions make objects to say what it is, and every recorded call asks. So it is read by the functions
 * of C++ behind them, and dispatch keys where they lie, if state_addresses.py has found them and seen them say the same.
 */

/* What state_addresses.py finds, by these places; all without arguments, but for two that take a kind of device. */
enum { AT_GRAD, AT_INFERENCE, AT_AUTOCAST, AT_AUTOCAST_DTYPE, AT_AUTOCAST_CACHED, AT_FUNCTIONS, AT_FUNCTION_MODES,
       AT_DISPATCH_MODES, AT_TRANSFORMS, ADDRESSES };
enum { DEVICE_CPU = 0 };

typedef struct {
    uint64_t included, excluded; /* dispatch keys, as they lie in memory */
} Keys;
typedef struct {
    Keys keys;
    int64_t function_modes, dispatch_modes, transforms;
    int8_t grad, inference, autocast, autocast_dtype, autocast_cached, functions, unused[2];
} TorchState;

static void *state_at[ADDRESSES], *library_of_keys; /* NULL: it is not read so */
static Keys keys_without_autocast;
static int know_keys_without_autocast;

static Keys *keys_of_thread(void) {
#ifdef __linux__
    static __thread Keys *keys;
    if (keys == NULL) keys = dlsym(library_of_keys, "_ZN3c104impl26raw_local_dispatch_key_setE");
    return keys;
#else
    return NULL;
#endif
}

#define ASK(type, place) ((type (*)(void))state_at[place])()
#define ASK_OF_CPU(place) ((int8_t (*)(int8_t))state_at[place])(DEVICE_CPU)

/* Whether it could be read. */
static int read_state(TorchState *state) {
    Keys *keys = library_of_keys == NULL ? NULL : keys_of_thread();
    if (keys == NULL) return 0;
    char **transforms = ASK(char **, AT_TRANSFORMS); /* a vector of C++: where it begins and ends */
    *state = (TorchState){
        .keys = *keys,
        .function_modes = ASK(int64_t, AT_FUNCTION_MODES),
        .dispatch_modes = ASK(int64_t, AT_DISPATCH_MODES),
        .transforms = transforms[1] - transforms[0],
        .grad = ASK(int8_t, AT_GRAD),
        .inference = ASK(int8_t, AT_INFERENCE),
        .autocast = ASK_OF_CPU(AT_AUTOCAST),
        .autocast_dtype = ASK_OF_CPU(AT_AUTOCAST_DTYPE),
        .autocast_cached = ASK(int8_t, AT_AUTOCAST_CACHED),
        .functions = ASK(int8_t, AT_FUNCTIONS),
    };
    return 1;
}

/* know_state(addresses, library): where PyTorch says its state; 0 for the library if it is not known. */
static PyObject *know_state(PyObject *module, PyObject *arguments) {
    PyObject *addresses, *library;
    if (!PyArg_ParseTuple(arguments, "O!O!", &PyTuple_Type, &addresses, &PyLong_Type, &library)) return NULL;
    if (PyTuple_GET_SIZE(addresses) != ADDRESSES) return PyErr_Format(PyExc_TypeError, "%d addresses", ADDRESSES);
    void *own = PyLong_AsVoidPtr(library);
    library_of_keys = NULL;
    know_keys_without_autocast = 0;
    for (int n = 0; n < ADDRESSES && own != NULL; n++)
        if ((state_at[n] = PyLong_AsVoidPtr(PyTuple_GET_ITEM(addresses, n))) == NULL) own = NULL;
    if (PyErr_Occurred()) return NULL;
    library_of_keys = own;
    Py_RETURN_NONE;
}

/* torch_state(): what of it is read so, in the order of these places, and the keys; None if nothing is. */
static PyObject *torch_state(PyObject *module, PyObject *unused) {
    TorchState now;
    if (!read_state(&now)) Py_RETURN_NONE;
    return Py_BuildValue("(iiiiiiLLLKK)", now.grad, now.inference, now.autocast, now.autocast_dtype,
                         now.autocast_cached, now.functions, (long long)now.function_modes,
                         (long long)now.dispatch_modes, (long long)now.transforms,
                         (unsigned long long)now.keys.included, (unsigned long long)now.keys.excluded);
}

static int says_true(PyObject *function) {
    PyObject *said = PyObject_CallNoArgs(function);
    Py_XDECREF(said);
    return said == NULL ? -1 : said != Py_False;
}

/* Whether gradients are recorded, and whether this is inference mode; -1 for an error. */
static int grad_is_on(void) { return library_of_keys == NULL ? says_true(is_grad_enabled_) : ASK(int8_t, AT_GRAD); }
static int in_inference(void) { return library_of_keys == NULL ? says_true(is_inference_) : ASK(int8_t, AT_INFERENCE); }

static int is_without_function_modes(void) {
    if (library_of_keys != NULL) return ASK(int64_t, AT_FUNCTION_MODES) == 0;
    PyObject *count = PyObject_CallNoArgs(function_modes_);
    int none = count == NULL ? -1 : PyObject_RichCompareBool(count, zero, Py_EQ);
    Py_XDECREF(count);
    return none;
}

/* Whether any autocast is on, which dispatch keys alone decide; -1 for an error. */
static int autocast_is_on(void) {
    Keys *keys = library_of_keys == NULL ? NULL : keys_of_thread();
    if (keys != NULL && know_keys_without_autocast && !memcmp(keys, &keys_without_autocast, sizeof(Keys))) return 0;
    int on = says_true(is_any_autocast_);
    if (keys != NULL && on == 0) {
        keys_without_autocast = *keys;
        know_keys_without_autocast = 1;
    }
    return on;
}

#endif
