"""DyNet runs of minibatches, asked for over standard input: a program for the Python that has DyNet.

It imports DyNet, NumPy and the standard library only and runs on Python 3.6. One line of JSON asks, one line answers:

``{"load": FILE}``       a minibatch and its weights, as :func:`edbatch_tvm.peers.dynet_run.write_minibatch` writes them
``{"run": true}``        runs it: ``{"build": seconds to make DyNet's graph, "forward": those of the forward pass}``
``{"outputs": FILE}``    writes the declared outputs of the last run, one per row
``{"train": "wall"}``    a step with its labels: ``{"build": ..., "step": seconds of the forward pass, the sum of the
                         cross entropies of all outputs, and the backward pass, "loss": ...}``
``{"gradients": FILE}``  writes the gradients of the last step by the names of weights, as ``.npz``
"""

# DyNet has no types, and its Python is older than the annotations used elsewhere.
# mypy: ignore-errors

import json
import sys
from time import perf_counter, process_time

import numpy as np

ZERO = -1


def lstm(dy, gates, c):
    """The next (h, c) from pre-activations in the order i, f, o, g."""
    size = gates.dim()[0][0] // 4
    ifo = dy.logistic(dy.pick_range(gates, 0, 3 * size))
    g = dy.tanh(dy.pick_range(gates, 3 * size, 4 * size))
    kept = dy.cmult(dy.pick_range(ifo, size, 2 * size), c)
    c = kept + dy.cmult(dy.pick_range(ifo, 0, size), g)
    return dy.cmult(dy.pick_range(ifo, 2 * size, 3 * size), dy.tanh(c)), c


def tree_state(dy, iou, kept):
    """(h, c) from the gates i, o, u and what is kept of the parts' memories."""
    size = iou.dim()[0][0] // 3
    io = dy.logistic(dy.pick_range(iou, 0, 2 * size))
    c = dy.cmult(dy.pick_range(io, 0, size), dy.tanh(dy.pick_range(iou, 2 * size, 3 * size)))
    c = c if kept is None else c + kept
    return dy.cmult(dy.pick_range(io, size, 2 * size), dy.tanh(c)), c


def mixed(dy, z, h, c):
    """``z * h + (1 - z) * c``."""
    return c + dy.cmult(z, h - c)


def gru(dy, h, rz, candidate):
    """A GRU step from pre-activations r, z and ``candidate(r * h)``."""
    size = h.dim()[0][0]
    rz = dy.logistic(rz)
    c = dy.tanh(candidate(dy.cmult(dy.pick_range(rz, 0, size), h)))
    return mixed(dy, dy.pick_range(rz, size, 2 * size), h, c)


class Weights:
    """Parameters of the model: matrices transposed for columns, tables as lookup parameters."""

    def __init__(self, dy, arrays, tables):
        self._dy = dy
        self._collection = dy.ParameterCollection()
        self._tables = {
            # DyNet fills a row of a table of matrices column by column.
            name: self._collection.lookup_parameters_from_numpy(
                np.ascontiguousarray(array if array.ndim == 2 else array.transpose(0, 2, 1))
            )
            for name, array in arrays.items()
            if name in tables
        }
        self._parameters = {
            name: self._collection.parameters_from_numpy(np.ascontiguousarray(array.T))
            for name, array in arrays.items()
            if name not in tables
        }
        self._arrays = arrays
        self._made = {}
        self._trained = False
        self._trainer = None

    def _make(self, key, array):
        if key not in self._made:
            self._made[key] = self._collection.parameters_from_numpy(np.ascontiguousarray(array))
        return self._made[key]

    def rows(self, name, begin, end):
        """The part of matrix `name` that reads elements `begin` to `end` of its input."""
        return self._make((name, begin, end), self._arrays[name][begin:end].T)

    def fused(self, names):
        """Several weights of one shape as one."""
        return self._make(tuple(names), np.concatenate([self._arrays[name] for name in names], -1).T)

    def plain(self, name):
        """A matrix as it is."""
        return self._make((name, "plain"), self._arrays[name])

    def halves(self, name, size):
        """The two halves of a matrix that multiplies from the left."""
        array = self._arrays[name]
        return self._make((name, "left"), array[:, :size]), self._make((name, "right"), array[:, size:])

    def __getitem__(self, name):
        return self._parameters[name]

    def look(self, name, row):
        """A row of a table."""
        return self._dy.lookup(self._tables[name], int(row), update=self._trained)

    def clear_gradients(self):
        """Set all gradients to zero, and let rows of tables have some from now on."""
        self._trained = True
        if self._trainer is None:
            self._trainer = self._dy.SimpleSGDTrainer(self._collection, 0.0)
        self._trainer.update()

    def gradients(self):
        """The gradients of all weights, in the shape of the weights as written."""
        found = {name: np.zeros(array.shape) for name, array in self._arrays.items()}
        for name, table in self._tables.items():
            found[name] += table.grad_as_array()
        for name, parameter in self._parameters.items():
            found[name] += parameter.grad_as_array().T
        for key, parameter in self._made.items():
            name, begin, end = key
            found[name][begin:end] += parameter.grad_as_array().T
        return found


def affine(dy, w, bias, matrix, *inputs):
    """``bias + [inputs] @ matrix``, a product for each input."""
    if len(inputs) == 1:
        return dy.affine_transform([w[bias], w[matrix], inputs[0]])
    terms, begin = [w[bias]], 0
    for one in inputs:
        size = one.dim()[0][0]
        terms += [w.rows(matrix, begin, begin + size), one]
        begin += size
    return dy.affine_transform(terms)


def treelstm(dy, w, cell, x):
    """A cell of the trees with one or two types of internal nodes."""
    if cell == "leaf":
        return tree_state(dy, affine(dy, w, "b_leaf", "W_leaf", w.look("embedding", x["word"])), None)
    if cell == "readout":
        return (affine(dy, w, "b_out", "W_out", x["h"]),)
    end = cell[len("internal") :]
    iou = affine(dy, w, "b_iou" + end, "U_iou" + end, x["h1"], x["h2"])
    f1 = dy.logistic(affine(dy, w, "b_f" + end, "U_f1" + end, x["h1"]))
    f2 = dy.logistic(affine(dy, w, "b_f" + end, "U_f2" + end, x["h2"]))
    return tree_state(dy, iou, dy.cmult(f1, x["c1"]) + dy.cmult(f2, x["c2"]))


def childsum(dy, w, cell, x):
    """A cell of the trees of any arity."""
    if cell != "internal":
        return treelstm(dy, w, cell, x)
    kept = [
        dy.cmult(dy.logistic(affine(dy, w, "b_f", "U_f", h)), c)
        for h, c in zip(x["hs"], x["cs"])  # noqa: B905
    ]
    return tree_state(dy, affine(dy, w, "b_iou", "U_iou", dy.esum(x["hs"])), dy.esum(kept))


def treegru(dy, w, cell, x):
    """A cell of the GRU trees."""
    if cell == "readout":
        return (affine(dy, w, "b_out", "W_out", x["h"]),)
    if cell == "leaf":
        e = w.look("embedding", x["word"])
        return (gru(dy, e, affine(dy, w, "b_leaf", "U_leaf", e), lambda rh: affine(dy, w, "b_leaf_c", "U_leaf_c", rh)),)
    parts = [
        gru(dy, h, affine(dy, w, "b", "U_" + k, h), lambda rh, k=k: affine(dy, w, "b_c", "U_c" + k, rh))
        for k, h in (("1", x["h1"]), ("2", x["h2"]))
    ]
    return ((parts[0] + parts[1]) * 0.5,)


def mvrnn(dy, w, cell, x):
    """A cell of the MV-RNN."""
    if cell == "leaf":
        return w.look("embedding", x["word"]), w.look("matrices", x["word"])
    if cell == "readout":
        return (affine(dy, w, "b_out", "W_out", x["v"]),)
    v = dy.tanh(affine(dy, w, "b", "W_v", x["M_l"] * x["v_r"], x["M_r"] * x["v_l"]))
    size = x["v_l"].dim()[0][0]
    left, right = w.halves("W_M", size)
    return v, dy.affine_transform([w.plain("b_M"), left, x["M_l"], right, x["M_r"]])


def lattice_lstm(dy, w, cell, x):
    """A cell of the LSTM lattices."""
    if cell == "start":
        return w["h_start"], w["c_start"]
    if cell == "join":
        return dy.esum(x["hs"]), dy.esum(x["cs"])
    if cell == "readout":
        return (affine(dy, w, "b_out", "W_out", x["h"]),)
    kind = cell[:4]
    return lstm(dy, affine(dy, w, "b_" + kind, "W_" + kind, w.look(kind + "_embedding", x[kind]), x["h"]), x["c"])


def lattice_gru(dy, w, cell, x):
    """A cell of the GRU lattices."""
    if cell == "start":
        return (w["h_start"],)
    if cell == "join":
        return (dy.average(x["hs"]),)
    if cell == "readout":
        return (affine(dy, w, "b_out", "W_out", x["h"]),)
    k, h = cell[:4], x["h"]
    e = w.look(k + "_embedding", x[k])
    rz = dy.affine_transform([w["b_" + k], w["U_" + k], h, w["W_" + k], e])
    return (gru(dy, h, rz, lambda rh: dy.affine_transform([w["b_c_" + k], w["U_c_" + k], rh, w["W_c_" + k], e])),)


def bilstm_tagger(dy, w, cell, x):
    """A cell of the taggers."""
    if cell == "tag":
        inner = w.rows("T_tag", 0, x["forward"].dim()[0][0]) * x["forward"]
        size = x["forward"].dim()[0][0]
        inner = inner + w.rows("T_tag", size, 2 * size) * x["backward"]
        return (w["O_tag"] * dy.tanh(inner),)
    if cell == "word":
        return (w.look("embedding", x["word"]),)
    if cell == "spell":
        return (dy.concatenate([x["forward"], x["backward"]]),)
    name = cell.replace("_layer", "")
    table = "char_embedding" if cell.startswith("char") else "embedding"
    attribute = "char" if cell.startswith("char") else "word"
    given = x["x"] if "x" in x else w.look(table, x[attribute])
    return lstm(dy, affine(dy, w, "b_" + name, "W_" + name, given, x["h"]), x["c"])


def lstm_nmt(dy, w, cell, x):
    """A cell of the translator."""
    if cell == "readout":
        return (affine(dy, w, "b_out", "W_out", x["h"]),)
    if cell in ("source", "target"):
        e = w.look("embedding_" + cell, x["word"])
        return (dy.tanh(affine(dy, w, "b_e_" + cell, "W_e_" + cell, e)),)
    bias, matrix = (w.fused([kind + "_" + gate + "_" + cell for gate in "ifog"]) for kind in "bW")
    return lstm(dy, dy.affine_transform([bias, matrix, dy.concatenate([x["x"], x["h"]])]), x["c"])


def grid_lstm(dy, w, cell, x):
    """A cell of the grids."""
    if cell == "readout":
        return (affine(dy, w, "b_out", "W_out", x["h1"], x["h2"]),)
    if cell in ("source", "target"):
        state = dy.tanh(affine(dy, w, "b_" + cell, "W_" + cell, w.look("embedding_" + cell, x["word"])))
        size = state.dim()[0][0] // 2
        return dy.pick_range(state, 0, size), dy.pick_range(state, size, 2 * size)
    both = dy.concatenate([x["h1"], x["h2"]])
    down = lstm(dy, affine(dy, w, "b_1", "W_1", both), x["c1"])
    return (*down, *lstm(dy, affine(dy, w, "b_2", "W_2", both), x["c2"]))


def random_dag(dy, w, cell, x):
    """A cell of the random DAGs."""
    if cell == "input":
        return (w.look("embedding", x["word"]),)
    if cell == "readout":
        return (affine(dy, w, "b_out", "W_out", x["h"]),)
    if cell == "dense":
        return (dy.tanh(affine(dy, w, "b_dense", "W_dense", dy.average(x["hs"]))),)
    if cell == "gated":
        s = dy.average(x["hs"])
        size = s.dim()[0][0]
        zc = affine(dy, w, "b_gated", "U_gated", s)
        z, c = dy.logistic(dy.pick_range(zc, 0, size)), dy.tanh(dy.pick_range(zc, size, 2 * size))
        return (mixed(dy, z, s, c),)
    if cell == "weighted":
        kept = [dy.cmult(dy.logistic(dy.cmult(w["v_weighted"], h)), h) for h in x["hs"]]
        return (dy.tanh(w["V_weighted"] * dy.average(kept)),)
    return (dy.tanh(dy.cmult(w["a_largest"], dy.emax(x["hs"])) + w["b_largest"]),)


MODELS = {
    "treelstm": treelstm,
    "treelstm-2type": treelstm,
    "childsum-tree": childsum,
    "treegru": treegru,
    "mvrnn": mvrnn,
    "lattice-lstm": lattice_lstm,
    "lattice-gru": lattice_gru,
    "bilstm-tagger": bilstm_tagger,
    "bilstm-tagger-char": bilstm_tagger,
    "lstm-nmt": lstm_nmt,
    "grid-lstm": grid_lstm,
    "random-dag": random_dag,
}


class Minibatch:
    """One minibatch and its weights, ready to run."""

    def __init__(self, dy, path):
        self._dy = dy
        with np.load(path) as file:
            self._about = json.loads(str(file["about"]))
            self._arrays = {name: file[name] for name in file.files if name != "about"}
        weights = {n[len("weight ") :]: a for n, a in self._arrays.items() if n.startswith("weight ")}
        self._weights = Weights(dy, weights, set(self._about["tables"]))
        self._cell = MODELS[self._about["workload"]]
        self._outputs = None

    def run(self):
        """Make DyNet's graph of the whole minibatch, then one forward pass of all that is declared."""
        begin = perf_counter()
        wanted = self._graph()
        built = perf_counter()
        self._dy.forward(wanted)
        end = perf_counter()
        self._outputs = wanted
        return {"build": built - begin, "forward": end - built}

    def train(self, clock="wall"):
        """One step without an optimizer."""
        dy = self._dy
        now = process_time if clock == "cpu" else perf_counter
        self._weights.clear_gradients()
        begin = now()
        labels = self._arrays["labels"].tolist()
        loss = dy.esum([dy.pickneglogsoftmax(one, label) for one, label in zip(self._graph(), labels)])  # noqa: B905
        built = now()
        value = loss.value()
        loss.backward()
        end = now()
        return {"build": built - begin, "step": end - built, "loss": float(value)}

    def _graph(self):
        """DyNet's graph of the whole minibatch; what is declared."""
        dy, about = self._dy, self._about
        dy.renew_cg()
        stride, cells = about["stride"], about["cells"]
        pointer, values = self._arrays["operand_ptr"].tolist(), self._arrays["operand_value"].tolist()
        position = [0] * len(cells)
        results = []
        for node, kind in enumerate(self._arrays["node_type"].tolist()):
            cell = cells[kind]
            given = values[pointer[node] : pointer[node + 1]]
            variadic = sum(one["variadic"] for one in cell["operands"])
            repeat = (len(given) - len(cell["operands"]) + variadic) // variadic if variadic else 0
            arguments, at = {}, 0
            for one in cell["operands"]:
                count = repeat if one["variadic"] else 1
                found = [
                    results[v // stride][v % stride] if v >= 0 else dy.zeros(tuple(one["shape"]))
                    for v in given[at : at + count]
                ]
                arguments[one["name"]] = found if one["variadic"] else found[0]
                at += count
            for name in cell["attributes"]:
                arguments[name] = self._arrays[f"attribute {kind} {name}"][position[kind]]
            position[kind] += 1
            results.append(self._cell(dy, self._weights, cell["name"], arguments))
        return [results[v // stride][v % stride] for v in self._arrays["outputs"].tolist()]

    def gradients(self, path):
        """Write the gradients of the last step."""
        np.savez(path, **self._weights.gradients())
        return {}

    def outputs(self, path):
        """Write the declared outputs of the last run."""
        np.save(path, np.stack([one.npvalue() for one in self._outputs]))
        return {}


def main():
    """Answer requests until standard input ends."""
    import dynet_config

    memory = sys.argv[1] if len(sys.argv) > 1 else "2048"
    dynet_config.set(mem=int(memory), autobatch=1, random_seed=1)
    import dynet as dy

    minibatch = None
    print(json.dumps({"version": dy.__version__}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "load" in request:
                minibatch, answer = Minibatch(dy, request["load"]), {}
            elif "run" in request:
                answer = minibatch.run()
            elif "train" in request:
                answer = minibatch.train(request["train"])
            elif "gradients" in request:
                answer = minibatch.gradients(request["gradients"])
            else:
                answer = minibatch.outputs(request["outputs"])
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
