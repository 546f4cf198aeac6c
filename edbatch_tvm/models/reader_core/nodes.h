/* The nodes of minibatches of trees, sentences and lattices, in the order in which the builder makes them: the arrays
 * node_type, operand_ptr and operand_value of a graph, the ids that it reads, and where its instances begin. None for
 * what is no such item, or has more values than int32 counts. */
#ifndef EDBATCH_NODES_H
#define EDBATCH_NODES_H
#include "vectors.h"

enum { NO_VALUE = -1, MOST_PARTS = 8 };

/* What is written, as bytes; `type`, `ptr` and `value` are where the next node goes. */
typedef struct {
    PyObject *bytes[MOST_PARTS];
    int many;
    int16_t *type;
    int32_t *ptr, *value, *first_value;
} Nodes;

/* The next part of the answer, for so many elements; NULL: an exception is set. */
static void *part(Nodes *nodes, Py_ssize_t bytes) {
    PyObject *made = PyBytes_FromStringAndSize(NULL, bytes);
    if (made == NULL) return NULL;
    nodes->bytes[nodes->many++] = made;
    return PyBytes_AS_STRING(made);
}

static int begin_nodes(Nodes *nodes, int64_t calls, int64_t edges, int32_t stride) {
    *nodes = (Nodes){{NULL}};
    if (calls * stride > INT32_MAX || edges > INT32_MAX) return 0;
    if ((nodes->type = part(nodes, calls * sizeof(int16_t))) == NULL ||
        (nodes->ptr = part(nodes, (calls + 1) * sizeof(int32_t))) == NULL ||
        (nodes->value = nodes->first_value = part(nodes, edges * sizeof(int32_t))) == NULL)
        return 0;
    *nodes->ptr++ = 0;
    return 1;
}

static inline void read_value(Nodes *nodes, int32_t value) { *nodes->value++ = value; }

/* The first values of a node; as many zero states where there is none. */
static inline void read_outputs(Nodes *nodes, int32_t value, int32_t outputs) {
    for (int32_t slot = 0; slot < outputs; slot++) *nodes->value++ = value < 0 ? NO_VALUE : value + slot;
}

/* The node that has read what was written since the one before. */
static inline void end_node(Nodes *nodes, int32_t type) {
    *nodes->type++ = (int16_t)type;
    *nodes->ptr++ = (int32_t)(nodes->value - nodes->first_value);
}

static PyObject *answer_nodes(Nodes *nodes, int good) {
    PyObject *made = good && !PyErr_Occurred() ? PyTuple_New(nodes->many) : NULL;
    for (int n = 0; n < nodes->many; n++) {
        if (made != NULL) PyTuple_SET_ITEM(made, n, nodes->bytes[n]);
        else Py_DECREF(nodes->bytes[n]);
    }
    if (made == NULL && !PyErr_Occurred()) Py_RETURN_NONE;
    return made;
}

static int ascending_from_0(const int32_t *ptr, Py_ssize_t many, Py_ssize_t last) {
    if (many < 0 || ptr[0] != 0 || ptr[many] != last) return 0;
    for (Py_ssize_t n = 0; n < many; n++)
        if (ptr[n + 1] < ptr[n]) return 0;
    return 1;
}

/* lattice_nodes(sources, labels, arc_ptr, ptr, types, stride, outputs): those of lattice_graph(); `types` are those of
 * char_arc, word_arc, start, join and readout. After the nodes: labels of characters, of words, outputs, node_ptr. */
static PyObject *lattice_nodes(PyObject *module, PyObject *arguments) {
    Py_buffer source_, label_, arc_, ptr_;
    int type[5], stride, outputs, good = 0;
    if (!PyArg_ParseTuple(arguments, "y*y*y*y*(iiiii)ii", &source_, &label_, &arc_, &ptr_, &type[0], &type[1], &type[2],
                          &type[3], &type[4], &stride, &outputs))
        return NULL;
    const int32_t *source = source_.buf, *label = label_.buf, *arc = arc_.buf, *ptr = ptr_.buf;
    Py_ssize_t arcs = source_.len / 4, count = arc_.len / 4 - 1, many = ptr_.len / 4 - 1;
    int32_t *state = PyMem_Malloc((count + 1) * sizeof(int32_t)); /* of each lattice node: the first value */
    Nodes made = {{NULL}};
    if (state == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    if (label_.len != source_.len || !ascending_from_0(arc, count, arcs) || !ascending_from_0(ptr, many, count)) goto done;
    int64_t calls = arcs + count, edges = (int64_t)arcs * outputs + count, chars = 0;
    for (Py_ssize_t lattice = 0; lattice < many; lattice++)
        for (int32_t node = ptr[lattice]; node < ptr[lattice + 1]; node++) {
            int32_t into = arc[node + 1] - arc[node], own = node - ptr[lattice];
            calls += into != 1;
            if (into > 1) edges += (int64_t)into * outputs;
            for (int32_t n = arc[node]; n < arc[node + 1]; n++) {
                if (source[n] < 0 || source[n] >= own) goto done;
                chars += source[n] == own - 1;
            }
        }
    if (!begin_nodes(&made, calls, edges, stride)) goto done;
    int32_t *labels[2] = {part(&made, chars * 4), NULL}, *output, *node_ptr, call = 0;
    if (labels[0] == NULL || (labels[1] = part(&made, (arcs - chars) * 4)) == NULL ||
        (output = part(&made, count * 4)) == NULL || (node_ptr = part(&made, (many + 1) * 4)) == NULL)
        goto done;
    *node_ptr++ = 0;
    for (Py_ssize_t lattice = 0; lattice < many; lattice++) {
        int32_t first = ptr[lattice], last = ptr[lattice + 1];
        for (int32_t node = first; node < last; node++) {
            int32_t begin = arc[node], into = arc[node + 1] - begin, first_call = call;
            for (int32_t n = begin; n < begin + into; n++, call++) {
                int is_word = first + source[n] != node - 1;
                *labels[is_word]++ = label[n];
                read_outputs(&made, state[first + source[n]], outputs);
                end_node(&made, type[is_word]);
            }
            state[node] = first_call * stride;
            if (into == 1) continue;
            if (into > 1)
                for (int32_t slot = 0; slot < outputs; slot++)
                    for (int32_t n = first_call; n < first_call + into; n++) read_value(&made, n * stride + slot);
            end_node(&made, type[into ? 3 : 2]);
            state[node] = call++ * stride;
        }
        for (int32_t node = first; node < last; node++) {
            read_value(&made, state[node]);
            end_node(&made, type[4]);
            *output++ = call++ * stride;
        }
        *node_ptr++ = call;
    }
    good = 1;
done:
    PyMem_Free(state);
    PyBuffer_Release(&source_);
    PyBuffer_Release(&label_);
    PyBuffer_Release(&arc_);
    PyBuffer_Release(&ptr_);
    return answer_nodes(&made, good);
}

/* tree_nodes(symbols, ptr, leaf, readout, internal, arity, stride, outputs): those of tree_graph() and flat_tree_graph();
 * `internal` are the types of the symbols -1, -2, ..., or one of all. See children() for `arity`. After the nodes: words,
 * outputs, node_ptr. */
static PyObject *tree_nodes(PyObject *module, PyObject *arguments) {
    Py_buffer symbol_, ptr_, internal_;
    int leaf, readout, arity, stride, outputs, good = 0;
    if (!PyArg_ParseTuple(arguments, "y*y*iiy*iii", &symbol_, &ptr_, &leaf, &readout, &internal_, &arity, &stride, &outputs))
        return NULL;
    const int32_t *symbol = symbol_.buf, *ptr = ptr_.buf, *internal = internal_.buf;
    Py_ssize_t count = symbol_.len / 4, many = ptr_.len / 4 - 1, kinds = internal_.len / 4;
    int32_t *stack = PyMem_Malloc((count + 1) * sizeof(int32_t)); /* the first values of trees without a parent so far */
    Nodes made = {{NULL}};
    if (stack == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    if (!ascending_from_0(ptr, many, count)) goto done;
    int64_t words = 0, edges = count;
    for (Py_ssize_t n = 0; n < count; n++) {
        words += symbol[n] >= 0;
        if (symbol[n] < 0) edges += (int64_t)outputs * (arity ? arity : -(int64_t)symbol[n]);
        if (symbol[n] < 0 && kinds > 1 && -(int64_t)symbol[n] > kinds) goto done;
    }
    if (!begin_nodes(&made, 2 * (int64_t)count, edges, stride)) goto done;
    int32_t *word = part(&made, words * 4), *output, *node_ptr, call = 0;
    if (word == NULL || (output = part(&made, count * 4)) == NULL || (node_ptr = part(&made, (many + 1) * 4)) == NULL)
        goto done;
    *node_ptr++ = 0;
    for (Py_ssize_t tree = 0; tree < many; tree++) {
        int32_t waiting = 0, first = call;
        for (int32_t n = ptr[tree]; n < ptr[tree + 1]; n++) {
            if (symbol[n] >= 0) {
                *word++ = symbol[n];
                end_node(&made, leaf);
            } else {
                int32_t parts = arity ? arity : -symbol[n];
                if (parts > waiting) goto done;
                waiting -= parts;
                if (arity)
                    for (int32_t k = 0; k < parts; k++) read_outputs(&made, stack[waiting + k], outputs);
                else
                    for (int32_t slot = 0; slot < outputs; slot++)
                        for (int32_t k = 0; k < parts; k++) read_value(&made, stack[waiting + k] + slot);
                end_node(&made, internal[kinds > 1 ? -symbol[n] - 1 : 0]);
            }
            stack[waiting++] = call++ * stride;
        }
        for (int32_t node = first, last = call; node < last; node++) {
            read_value(&made, node * stride);
            end_node(&made, readout);
            *output++ = call++ * stride;
        }
        *node_ptr++ = call;
    }
    good = 1;
done:
    PyMem_Free(stack);
    PyBuffer_Release(&symbol_);
    PyBuffer_Release(&ptr_);
    PyBuffer_Release(&internal_);
    return answer_nodes(&made, good);
}

/* sentence_nodes(words, ptr, types, stride): those of sentence_graph(); `types` are those of forward_layer1,
 * forward_layer2, backward_layer1, backward_layer2 and tag. After the nodes: words backward, outputs, node_ptr. */
static PyObject *sentence_nodes(PyObject *module, PyObject *arguments) {
    enum { LAYERS = 2, STATE = 2 };
    Py_buffer word_, ptr_;
    int type[5], stride, good = 0;
    if (!PyArg_ParseTuple(arguments, "y*y*(iiiii)i", &word_, &ptr_, &type[0], &type[1], &type[2], &type[3], &type[4], &stride))
        return NULL;
    const int32_t *word = word_.buf, *ptr = ptr_.buf;
    Py_ssize_t count = word_.len / 4, many = ptr_.len / 4 - 1;
    Nodes made = {{NULL}};
    if (!ascending_from_0(ptr, many, count)) goto done;
    if (!begin_nodes(&made, 5 * (int64_t)count, (4 * STATE + 4) * (int64_t)count, stride)) goto done;
    int32_t *backward = part(&made, count * 4), *output, *node_ptr, call = 0;
    if (backward == NULL || (output = part(&made, count * 4)) == NULL || (node_ptr = part(&made, (many + 1) * 4)) == NULL)
        goto done;
    *node_ptr++ = 0;
    for (Py_ssize_t sentence = 0; sentence < many; sentence++) {
        int32_t size = ptr[sentence + 1] - ptr[sentence], first = call;
        for (int direction = 0; direction < 2; direction++) {
            int32_t before = NO_VALUE, above = NO_VALUE;
            for (int32_t n = 0; n < size; n++, call += LAYERS) {
                if (direction) *backward++ = word[ptr[sentence + 1] - 1 - n];
                read_outputs(&made, before, STATE);
                end_node(&made, type[LAYERS * direction]);
                before = call * stride;
                read_value(&made, before);
                read_outputs(&made, above, STATE);
                end_node(&made, type[LAYERS * direction + 1]);
                above = (call + 1) * stride;
            }
        }
        for (int32_t n = 0; n < size; n++, call++) {
            read_value(&made, (first + LAYERS * n + 1) * stride);
            read_value(&made, (first + LAYERS * (2 * size - 1 - n) + 1) * stride);
            end_node(&made, type[4]);
            *output++ = call * stride;
        }
        *node_ptr++ = call;
    }
    good = 1;
done:
    PyBuffer_Release(&word_);
    PyBuffer_Release(&ptr_);
    return answer_nodes(&made, good);
}

#endif
