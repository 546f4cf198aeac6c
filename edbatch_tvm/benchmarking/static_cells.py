# mypy: disable-error-code="valid-type,no-untyped-def"
"""The seven static cells whose memory traffic the paper counts, written operator by operator."""

from __future__ import annotations

from typing import Any

from tvm.script import ir as I
from tvm.script import relax as R

PUBLISHED: dict[str, tuple[int, int]] = {
    "lstm": (4, 2),
    "gru": (6, 2),
    "mv": (2, 2),
    "tree_internal": (7, 4),
    "tree_leaf": (3, 1),
    "treegru_internal": (8, 2),
    "treegru_leaf": (4, 2),
}
"""Gather and scatter kernels of the published code, declaration order and planned."""


def static_cells(hidden: int) -> Any:
    """The cells as an IRModule: LSTM, GRU, the vector of MV-RNN, TreeLSTM and TreeGRU internal and leaf."""
    H = hidden

    @I.ir_module
    class StaticCells:
        @R.function
        def lstm(
            x: R.Tensor((H,), "float32"),
            h: R.Tensor((H,), "float32"),
            c: R.Tensor((H,), "float32"),
            W_i: R.Tensor((H, H), "float32"),
            W_f: R.Tensor((H, H), "float32"),
            W_o: R.Tensor((H, H), "float32"),
            W_g: R.Tensor((H, H), "float32"),
            U_i: R.Tensor((H, H), "float32"),
            U_f: R.Tensor((H, H), "float32"),
            U_o: R.Tensor((H, H), "float32"),
            U_g: R.Tensor((H, H), "float32"),
            b_i: R.Tensor((H,), "float32"),
            b_f: R.Tensor((H,), "float32"),
            b_o: R.Tensor((H,), "float32"),
            b_g: R.Tensor((H,), "float32"),
        ):
            R.func_attr({"num_input": 3})
            with R.dataflow():
                xi = R.matmul(x, W_i)
                hi = R.matmul(h, U_i)
                xf = R.matmul(x, W_f)
                hf = R.matmul(h, U_f)
                xo = R.matmul(x, W_o)
                ho = R.matmul(h, U_o)
                xg = R.matmul(x, W_g)
                hg = R.matmul(h, U_g)
                si = R.add(xi, hi)
                sf = R.add(xf, hf)
                so = R.add(xo, ho)
                sg = R.add(xg, hg)
                zi = R.add(si, b_i)
                zf = R.add(sf, b_f)
                zo = R.add(so, b_o)
                zg = R.add(sg, b_g)
                i = R.sigmoid(zi)
                f = R.sigmoid(zf)
                o = R.sigmoid(zo)
                g = R.tanh(zg)
                ig = R.multiply(i, g)
                fc = R.multiply(f, c)
                c_new = R.add(ig, fc)
                t = R.tanh(c_new)
                h_new = R.multiply(o, t)
                R.output(h_new, c_new)
            return (h_new, c_new)

        @R.function
        def gru(
            x: R.Tensor((H,), "float32"),
            h: R.Tensor((H,), "float32"),
            W_r: R.Tensor((H, H), "float32"),
            W_z: R.Tensor((H, H), "float32"),
            W_c: R.Tensor((H, H), "float32"),
            U_r: R.Tensor((H, H), "float32"),
            U_z: R.Tensor((H, H), "float32"),
            U_c: R.Tensor((H, H), "float32"),
            b_r: R.Tensor((H,), "float32"),
            b_z: R.Tensor((H,), "float32"),
            b_c: R.Tensor((H,), "float32"),
        ):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                xr = R.matmul(x, W_r)
                hr = R.matmul(h, U_r)
                xz = R.matmul(x, W_z)
                hz = R.matmul(h, U_z)
                xc = R.matmul(x, W_c)
                sr = R.add(xr, hr)
                sz = R.add(xz, hz)
                zr = R.add(sr, b_r)
                zz = R.add(sz, b_z)
                r = R.sigmoid(zr)
                z = R.sigmoid(zz)
                rh = R.multiply(r, h)
                uc = R.matmul(rh, U_c)
                sc = R.add(xc, uc)
                zc = R.add(sc, b_c)
                c = R.tanh(zc)
                d = R.subtract(h, c)
                zd = R.multiply(z, d)
                h_new = R.add(c, zd)
                R.output(h_new)
            return h_new

        @R.function
        def mv(
            v_l: R.Tensor((H,), "float32"),
            m_l: R.Tensor((H, H), "float32"),
            v_r: R.Tensor((H,), "float32"),
            m_r: R.Tensor((H, H), "float32"),
            W_l: R.Tensor((H, H), "float32"),
            W_r: R.Tensor((H, H), "float32"),
            b_v: R.Tensor((H,), "float32"),
        ):
            R.func_attr({"num_input": 4})
            with R.dataflow():
                lr = R.matmul(m_l, v_r)
                rl = R.matmul(m_r, v_l)
                a = R.matmul(lr, W_l)
                b = R.matmul(rl, W_r)
                s = R.add(a, b)
                z = R.add(s, b_v)
                v = R.tanh(z)
                R.output(v)
            return v

        @R.function
        def tree_internal(
            h1: R.Tensor((H,), "float32"),
            c1: R.Tensor((H,), "float32"),
            h2: R.Tensor((H,), "float32"),
            c2: R.Tensor((H,), "float32"),
            U_i1: R.Tensor((H, H), "float32"),
            U_o1: R.Tensor((H, H), "float32"),
            U_u1: R.Tensor((H, H), "float32"),
            U_f1: R.Tensor((H, H), "float32"),
            U_i2: R.Tensor((H, H), "float32"),
            U_o2: R.Tensor((H, H), "float32"),
            U_u2: R.Tensor((H, H), "float32"),
            U_f2: R.Tensor((H, H), "float32"),
            b_i: R.Tensor((H,), "float32"),
            b_o: R.Tensor((H,), "float32"),
            b_u: R.Tensor((H,), "float32"),
            b_f: R.Tensor((H,), "float32"),
        ):
            R.func_attr({"num_input": 4})
            with R.dataflow():
                i1 = R.matmul(h1, U_i1)
                i2 = R.matmul(h2, U_i2)
                o1 = R.matmul(h1, U_o1)
                o2 = R.matmul(h2, U_o2)
                u1 = R.matmul(h1, U_u1)
                u2 = R.matmul(h2, U_u2)
                p1 = R.matmul(h1, U_f1)
                p2 = R.matmul(h2, U_f2)
                si = R.add(i1, i2)
                so = R.add(o1, o2)
                su = R.add(u1, u2)
                zi = R.add(si, b_i)
                zo = R.add(so, b_o)
                zu = R.add(su, b_u)
                q1 = R.add(p1, b_f)
                q2 = R.add(p2, b_f)
                i = R.sigmoid(zi)
                o = R.sigmoid(zo)
                f1 = R.sigmoid(q1)
                f2 = R.sigmoid(q2)
                u = R.tanh(zu)
                iu = R.multiply(i, u)
                d1 = R.multiply(f1, c1)
                d2 = R.multiply(f2, c2)
                d = R.add(iu, d1)
                c = R.add(d, d2)
                t = R.tanh(c)
                h = R.multiply(o, t)
                R.output(h, c)
            return (h, c)

        @R.function
        def tree_leaf(
            x: R.Tensor((H,), "float32"),
            W_i: R.Tensor((H, H), "float32"),
            W_u: R.Tensor((H, H), "float32"),
            W_o: R.Tensor((H, H), "float32"),
            b_i: R.Tensor((H,), "float32"),
            b_u: R.Tensor((H,), "float32"),
            b_o: R.Tensor((H,), "float32"),
        ):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                pi = R.matmul(x, W_i)
                pu = R.matmul(x, W_u)
                po = R.matmul(x, W_o)
                zi = R.add(pi, b_i)
                zu = R.add(pu, b_u)
                zo = R.add(po, b_o)
                i = R.sigmoid(zi)
                o = R.sigmoid(zo)
                u = R.tanh(zu)
                c = R.multiply(i, u)
                t = R.tanh(c)
                h = R.multiply(o, t)
                R.output(h, c)
            return (h, c)

        @R.function
        def treegru_internal(
            h1: R.Tensor((H,), "float32"),
            h2: R.Tensor((H,), "float32"),
            U_r1: R.Tensor((H, H), "float32"),
            U_z1: R.Tensor((H, H), "float32"),
            U_r2: R.Tensor((H, H), "float32"),
            U_z2: R.Tensor((H, H), "float32"),
            U_c1: R.Tensor((H, H), "float32"),
            U_c2: R.Tensor((H, H), "float32"),
            b_r: R.Tensor((H,), "float32"),
            b_z: R.Tensor((H,), "float32"),
            b_c: R.Tensor((H,), "float32"),
        ):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                pr1 = R.matmul(h1, U_r1)
                pz1 = R.matmul(h1, U_z1)
                pr2 = R.matmul(h2, U_r2)
                pz2 = R.matmul(h2, U_z2)
                qr1 = R.add(pr1, b_r)
                qz1 = R.add(pz1, b_z)
                qr2 = R.add(pr2, b_r)
                qz2 = R.add(pz2, b_z)
                r1 = R.sigmoid(qr1)
                z1 = R.sigmoid(qz1)
                r2 = R.sigmoid(qr2)
                z2 = R.sigmoid(qz2)
                s1 = R.multiply(r1, h1)
                s2 = R.multiply(r2, h2)
                e1 = R.matmul(s1, U_c1)
                e2 = R.matmul(s2, U_c2)
                y1 = R.add(e1, b_c)
                y2 = R.add(e2, b_c)
                c1 = R.tanh(y1)
                c2 = R.tanh(y2)
                d1 = R.subtract(h1, c1)
                d2 = R.subtract(h2, c2)
                g1 = R.multiply(z1, d1)
                g2 = R.multiply(z2, d2)
                a1 = R.add(c1, g1)
                a2 = R.add(c2, g2)
                a = R.add(a1, a2)
                h = R.multiply(a, R.const(0.5))
                R.output(h)
            return h

        @R.function
        def treegru_leaf(
            e: R.Tensor((H,), "float32"),
            U_r: R.Tensor((H, H), "float32"),
            U_z: R.Tensor((H, H), "float32"),
            U_c: R.Tensor((H, H), "float32"),
            b_r: R.Tensor((H,), "float32"),
            b_z: R.Tensor((H,), "float32"),
            b_c: R.Tensor((H,), "float32"),
        ):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                pr = R.matmul(e, U_r)
                pz = R.matmul(e, U_z)
                qr = R.add(pr, b_r)
                qz = R.add(pz, b_z)
                r = R.sigmoid(qr)
                z = R.sigmoid(qz)
                s = R.multiply(r, e)
                pc = R.matmul(s, U_c)
                qc = R.add(pc, b_c)
                c = R.tanh(qc)
                d = R.subtract(e, c)
                g = R.multiply(z, d)
                h = R.add(c, g)
                R.output(h)
            return h

    return StaticCells
