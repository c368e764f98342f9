"""The golden table of the catalogue: one deterministic run of every built-in cell, as printed there.

Parameter `name`, row-major index k: 0.5 sin(0.7 k + o), o = (sum of the character codes of name) mod
17. Inputs x_t[j] = cos(0.9 j + 0.4 t + 0.3) for t = 0, 1, 2, batch 1; further inputs 0.5 + 0.3 sin(t + j).
States start as declared, first-step rules apply. L is the sum of the first output. Batch statistics are
those of the three steps, differentiated through. The rows of weight_drop_lstm and cayley_rnn are our own,
of `reference.py`, which torch's autograd judges.

The rows from `gla` on were computed entry by entry, without arrays, and from another form where a paper has
one: retention and Mamba2 as sums over all steps, fast weights as attention, mLSTM without its stabiliser.
In those of slstm_heads and griffin a head has one unit. What is a matrix, as x of dcgru, is row-major.
"""

from dataclasses import dataclass

import numpy as np
from reference import REFERENCES, Reference

T, D, E, Q = 3, 2, 3, 4  # steps, input size (E where x is added to the state), hidden size, further size


@dataclass(frozen=True)
class Golden:
    """One row. The first three columns were printed with 6 decimals, the two sums with 5."""

    last: tuple[float, ...]  # the first output at the last step
    loss: float  # L
    d_x0: tuple[float, ...]  # (d,) dL/dx_0
    d_params_sum: float  # the sum over all entries of all trained parameters of dL/dp
    d_params_square: float  # ... of (dL/dp)^2


@dataclass(frozen=True)
class GoldenCase:
    """A row with what it was computed from."""

    reference: Reference
    params: dict[str, np.ndarray]
    x: np.ndarray  # (T, 1, d)
    inputs: dict[str, np.ndarray]  # the further ones, (T, 1, size)
    golden: Golden


def golden_case(name: str) -> GoldenCase:
    """The parameters, the input and the expected values of one cell, in float64."""
    reference = REFERENCES[name]
    params = {param: golden_parameter(param, shape) for param, shape in reference.shapes(D, E, Q).items()}
    widths, t = reference.widths(D, E, Q), np.arange(T)[:, None, None]
    x = np.cos(0.9 * np.arange(np.prod(widths["x"])) + 0.4 * t + 0.3).reshape(T, 1, *widths["x"])
    inputs = {key: 0.5 + 0.3 * np.sin(t + np.arange(*widths[key])) for key in reference.inputs}
    return GoldenCase(reference, params, x, inputs, GOLDEN[name])


def golden_parameter(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The table's value of a parameter."""
    o = sum(map(ord, name)) % 17
    return np.asarray(0.5 * np.sin(0.7 * np.arange(np.prod(shape, dtype=int)) + o)).reshape(shape)


# cell       | output at t = 2                     | L        | dL/dx_0                   |sum dL/dp|squares
TABLE = """
gru          | 0.474880 0.478764 -0.179805         |  1.969684| 0.195781 -0.229841        |  8.45509|  8.74710
gru_cho      | 0.112567 0.153910 -0.115297         |  0.162412| -0.029657 -0.333125       |  4.55977|  7.57734
gru_before   | 0.418509 0.488935 -0.146112         |  1.433747| -0.153262 -0.313185       |  7.43702| 13.75321
gru_after    | 0.486836 0.486378 -0.321775         |  1.140829| -0.131725 -0.331217       | 10.26956| 20.88929
gru_concat   | 0.209748 0.449276 -0.198266         |  0.856223| -0.533204 -0.400764       |  9.89888| 14.16965
gru_type1    | 0.465293 0.492236 -0.206886         |  1.830693| -0.003191 -0.292206       |  8.84106| 10.21866
gru_type2    | 0.468063 0.483711 -0.197025         |  1.693926| -0.035052 -0.327429       |  8.59255| 11.10803
gru_type3    | 0.461589 0.474568 -0.197612         |  1.788803| 0.013796 -0.275658        |  8.77191| 10.15540
mgu          | 0.432129 0.474284 -0.096293         |  1.572759| -0.099686 -0.267834       | 10.31065| 14.77466
mgu1         | 0.451923 0.461018 -0.107036         |  1.620664| 0.005954 -0.304634        |  9.34672| 13.04950
mgu2         | 0.464556 0.441644 -0.138712         |  1.663362| 0.015763 -0.287455        |  8.53267| 11.42801
mgu3         | 0.451903 0.487113 -0.149936         |  1.616474| -0.023837 -0.325274       |  9.36213| 12.88189
caru         | 0.645966 0.009425 -0.125671         |  1.115740| -1.658251 -1.485583       | 20.89956| 48.69219
caru_code    | 0.630003 0.009777 -0.124745         |  1.052099| -1.646305 -1.331218       | 19.74604| 43.58490
ligru        | 0.232858 0.599481 0.255343          |  1.934132| -0.535152 0.278225        |  5.65763|  7.52450
ligru_nobn   | 0.503637 0.750318 0.000000          |  3.021593| 0.514662 0.212417         |  7.93653| 21.76589
sligru       | 0.184905 1.181715 0.000000          |  2.403027| -0.481515 0.123875        |  1.35141| 14.12637
libru        | 0.023331 0.000000 0.000001          |  0.064653| 0.022562 0.019261         | -3.63708|  5.89770
libru_log    | -0.488834 -0.846770 -0.464740       | -5.961128| 0.146816 -0.125427        | -1.68418| 15.25597
libru_geomean| 0.784961 1.268924 0.368712          |  5.923556| 0.194036 0.185329         |  5.26341| 13.08772
lstm         | 0.111193 0.216739 0.114268          |  1.188132| -0.000406 -0.061047       |  5.84616|  2.27304
rnn          | 0.312727 0.740118 -0.237082         |  2.257317| -0.037120 -0.325803       | 12.15422| 22.01984
lstm_1997    | 0.335006 0.292674 0.142680          |  1.657247| 0.061343 -0.002288        |  7.07032|  3.55524
lstm_peephole| 0.110446 0.222543 0.123944          |  1.195948| -0.009193 -0.078342       |  6.28025|  2.25099
lstm_sak     | 0.012344 0.193194 -0.207410 0.016226| -0.011488| -0.025033 -0.058796       |  5.39446|  2.67348
lstm_cifg    | 0.108604 0.218217 0.123481          |  1.184288| -0.009842 -0.078596       |  5.43592|  2.13743
janet        | -0.133123 -0.121990 -0.664013       | -2.469710| 0.151839 -0.340426        | 11.32746| 34.87878
mlstm        | -0.218064 -0.216661 -0.099780       | -1.309980| 0.004757 0.103363         |  0.47541|  2.18888
slstm        | 0.153904 -0.022439 -0.204060        | -0.665792| -0.056804 -0.367356       |  4.91987|  7.58210
gilr         | -0.205555 -0.405945 -0.369581       | -2.374374| 0.004843 0.086791         |  8.96168|  8.73942
ln_lstm      | -0.257628 -0.008842 -0.264279       | -0.884790| -0.051487 0.135717        |  7.56896| 39.34495
ugrnn        | 0.011631 -0.144424 -0.448643        | -1.578424| -0.052032 -0.346149       |  7.33177|  9.76996
ran          | 0.144213 -0.116822 -0.152013        | -0.594298| -0.104933 -0.337707       |  3.38642|  7.02159
mut1         | 0.675182 0.225562 -0.422352         |  1.743256| 0.049053 0.173871 0.343388|  5.06016|  5.98805
star         | 0.294668 -0.207785 -0.432246        | -1.270862| -0.294717 -0.319787       |  6.36845|  8.80744
brc          | 0.385904 0.241361 -0.633833         | -0.215722| -0.027561 -0.784793       |  6.84691| 19.34274
atr          | 0.242786 0.138861 -0.114505         |  0.929670| 0.761308 0.303126         |  5.65488| 12.45954
sgu          | 0.618761 0.601999 0.449936          |  3.960677| -0.154323 -0.178768       |  3.28423|  1.01141
indygru      | 0.447862 0.343307 -0.041162         |  1.437267| -0.170884 -0.295082       |  7.12273| 13.70585
irnn         | 0.463929 1.235813 0.000000          |  4.988959| 0.944428 0.275126         | 21.46929| 62.34099
indrnn       | 0.941891 0.481540 0.014091          |  4.645945| 0.860876 0.413274         | 16.37270| 45.42866
fastrnn      | 0.400730 0.650579 -0.254447         |  1.891629| -0.024624 -0.329435       | 11.14852| 15.14795
fastgrnn     | 0.481299 0.789400 -0.273171         |  2.109567| -0.090866 -0.459303       | 12.80242| 20.47133
scrn         | 0.506162 0.678507 0.356557          |  4.609523| 0.043905 -0.059278        |  3.51806|  1.28669
rhn          | 0.383066 0.559217 0.079085          |  2.809353| -0.026590 -0.097266       | 13.67147|  9.07373
qrnn         | 0.270192 -0.048488 -0.260179        | -0.605084| -0.125306 -0.409564       |  3.41321|  2.77430
sru          | 0.655554 -0.287562 -0.817685        | -0.230852| 0.453524 0.335209 0.789499|  0.04755|  7.42048
mingru       | 0.649172 0.370716 -0.131847         |  2.414178| 0.496248 -0.056333        | 11.19735| 18.49783
mingru_log   | 0.652121 0.526669 0.370409          |  3.978816| 0.500480 0.039378         |  5.02208|  5.86207
minlstm      | 0.648874 0.524485 0.371178          |  3.953129| 0.473789 0.020249         |  3.67937|  5.53878
t_rnn        | 0.178498 -0.072153 -0.173861        | -0.343683| 0.024394 -0.297273        |  5.13819|  6.44402
lru          | 0.320077 -0.386848                  |  0.121978| 0.059613 0.473599         | -2.26463| 35.23159
rglru        | 0.384023 -0.206920 -0.273204        |  0.741211| 0.760140 0.258144 0.286105|  0.07293|  1.27182
antisymmetric| 0.190229 0.127000 -0.101446         |  0.422136| -0.017855 -0.115879       |  2.36490|  0.93621
cornn        | 0.029547 0.018547 -0.015014         |  0.057848| -0.000778 -0.015358       |  0.31367|  0.01515
li_spiking   | 0.000000 0.000000 0.000000          |  1.000000| 0.213777 0.217052         |  0.62126|  0.21716
ln_gru       | -0.351209 0.031668 0.081498         | -0.660250| 0.100391 -0.264638        |  4.63759| 17.02300
zoneout_gru  | 0.335655 0.182377 -0.064716         |  1.025239| 0.206543 0.010189         |  3.66522|  1.57006
weight_drop_lstm| 0.177289 0.201956 0.114974      |  1.255676| 0.001238 -0.061184         |  5.38856|  2.16069
cayley_rnn   | 0.611963 -0.423426 0.128233         |  1.345466| 0.091730 -0.383723        |  7.32952| 33.50168
gla          | 0.011886 -0.006881 -0.014225        | -0.012759| -0.089852 0.369938        |  4.57801|  4.55489
retnet       | 0.012374 -0.006879 -0.014713        | -0.012683| -0.090197 0.371180        |  4.59106|  4.58008
hgrn2        | 0.371697 -0.147100 -0.332549        | -0.382821| 0.198336 -0.168197        |  7.37315| 12.80134
fast_weights | -0.357165 -0.065473 0.334909        | -0.107248| -0.198819 0.637640        |  9.23455| 20.26824
deltanet     | 0.010588 -0.032085 -0.041484        |  0.105841| 0.210429 0.281141         |  2.13666|  1.48798
gated_deltanet|-0.009382 -0.032561 -0.006420       |  0.096515| 0.182167 0.288867         |  2.01594|  1.36596
matrix_lstm  | -0.054735 -0.028755 0.008802        | -0.002417| -0.193465 -0.044371       | -2.68004|  8.51288
mamba        | 0.238983 -0.183881 -0.756526        | -0.835855| 1.095326 1.379328 1.132194| -0.98604| 12.04515
mamba2       | -0.025204 -0.039110 0.011909        | -0.540440| -1.034874 -0.676999       |  1.01310|  5.51784
rwkv6        | -0.006190 0.022241 0.015929         |  0.381430| 0.174810 0.361048         |  1.84625|  1.07147
rwkv7        | -0.216366 0.186351 -0.250137        | -0.903934| -0.127156 0.299902        |  5.93489| 30.82065
paragru      | 0.250562 -0.324324 -0.406852        | -1.255354| 0.218017 -0.143705        |  6.84192| 15.19643
paralstm     | 0.231024 -0.087401 -0.172465        | -0.188849| 0.082667 -0.121265        |  4.10368|  2.70547
slstm_heads  | 0.197374 -0.060353 -0.203930 | -0.688348| -0.099949 -0.315746 | 4.70026| 5.67618
griffin      | 0.309248 -0.193480 -0.482971 | 0.308723| 0.758195 0.497530 0.505061 | 0.65915| 1.10576
ntm          | 0.054000 0.685023 -0.166991 | 1.675013| -0.216842 -0.588676 | 15.53893| 26.64801
dcgru        | 0.504995 0.078123 -0.546486 0.238638 0.220099 0.083422 \
-0.311422 -0.530170 -0.491369 0.231821 -0.154700 -0.465563 \
| -4.615715| 0.085755 -1.266613 0.267356 -0.963363 0.313421 -1.126258 0.344827 -0.969098 \
| 22.02884| 224.62175
conv_gru     | 0.271769 0.311025 0.202915 0.079307 0.082820 0.047579 \
-0.163365 -0.035296 0.118104 -0.114686 0.000936 0.116425 \
| 3.012263| 1.365871 -0.442311 -0.076851 0.179876 -0.100490 -0.172646 -0.650435 1.138911 \
| 1.99432| 14.87550
conv_lstm    | 0.267421 0.053537 -0.085795 0.219770 0.014162 -0.088651 \
0.148673 0.057178 -0.029275 0.134719 0.024815 -0.057165 \
| 1.009850| 0.670647 -0.614472 0.187151 -0.152842 0.005647 -0.002000 -0.201977 0.702670 \
| 16.78041| 96.49196
"""


def _row(line: str) -> tuple[str, Golden]:
    name, *columns = (column.strip() for column in line.split("|"))
    last, loss, d_x0, d_sum, d_square = (tuple(map(float, column.split())) for column in columns)
    return name, Golden(last, *loss, d_x0, *d_sum, *d_square)


GOLDEN: dict[str, Golden] = dict(map(_row, TABLE.strip().splitlines()))

# The number of trained scalars, from the same catalogue.
COUNTS = {
    "gru": lambda d, e, q: 3 * (d * e + e * e + e),
    "gru_cho": lambda d, e, q: 3 * (d * e + e * e),
    "gru_before": lambda d, e, q: 3 * (d * e + e * e + e),
    "gru_after": lambda d, e, q: 3 * (d * e + e * e + 2 * e),
    "gru_concat": lambda d, e, q: 3 * (e * (e + d) + e),
    "gru_type1": lambda d, e, q: 3 * (d * e + e * e + e) - 2 * d * e,
    "gru_type2": lambda d, e, q: 3 * (d * e + e * e + e) - 2 * d * e - 2 * e,
    "gru_type3": lambda d, e, q: 3 * (d * e + e * e + e) - 2 * d * e - 2 * e * e,
    "mgu": lambda d, e, q: 2 * (d * e + e * e + e),
    "mgu1": lambda d, e, q: 2 * (d * e + e * e + e) - d * e,
    "mgu2": lambda d, e, q: 2 * (d * e + e * e + e) - d * e - e,
    "mgu3": lambda d, e, q: 2 * (d * e + e * e + e) - d * e - e * e,
    "caru": lambda d, e, q: 2 * (d * e + e * e + 2 * e),
    "caru_code": lambda d, e, q: 2 * (d * e + e * e + 2 * e),
    "ligru": lambda d, e, q: 2 * d * e + 2 * e * e + 4 * e,
    "ligru_nobn": lambda d, e, q: 2 * (d * e + e * e + e),
    "sligru": lambda d, e, q: 2 * d * e + 2 * e * e + 4 * e,
    "libru": lambda d, e, q: 2 * (d * e + e * e + e),
    "libru_log": lambda d, e, q: 2 * (d * e + e * e + e),
    "libru_geomean": lambda d, e, q: 2 * (d * e + e * e + e),
    "lstm": lambda d, e, q: 4 * (d * e + e * e + e),
    "rnn": lambda d, e, q: d * e + e * e + e,
    "lstm_1997": lambda d, e, q: 3 * (d * e + e * e + e),
    "lstm_peephole": lambda d, e, q: 4 * (d * e + e * e + e) + 3 * e,
    "lstm_sak": lambda d, e, q: 4 * (d * e + e * q + e) + 3 * e + q * e,
    "lstm_cifg": lambda d, e, q: 3 * (d * e + e * e + e) + 2 * e,
    "janet": lambda d, e, q: 2 * (d * e + e * e + e),
    "mlstm": lambda d, e, q: 4 * (d * e + e * e + e) + d * e + e * e,
    "slstm": lambda d, e, q: 4 * (d * e + e * e + e),
    "gilr": lambda d, e, q: 2 * (d * e + e),
    "ln_lstm": lambda d, e, q: 4 * d * e + 4 * e * e + 4 * e + 8 * e + 2 * e,
    "ugrnn": lambda d, e, q: 2 * (d * e + e * e + e),
    "ran": lambda d, e, q: 3 * d * e + 2 * e * e + 2 * e,
    "mut1": lambda d, e, q: 2 * d * e + 2 * e * e + 3 * e,
    "star": lambda d, e, q: 2 * d * e + e * e + 2 * e,
    "brc": lambda d, e, q: 3 * d * e + 4 * e,
    "atr": lambda d, e, q: d * e + e * e + e,
    "sgu": lambda d, e, q: 2 * d * e + 2 * e * e + 2 * e,
    "indygru": lambda d, e, q: 3 * d * e + 6 * e,
    "irnn": lambda d, e, q: d * e + e * e + e,
    "indrnn": lambda d, e, q: d * e + 2 * e,
    "fastrnn": lambda d, e, q: d * e + e * e + e + 2,
    "fastgrnn": lambda d, e, q: d * e + e * e + 2 * e + 2,
    "scrn": lambda d, e, q: q * d + e * q + d * e + e * e,
    "rhn": lambda d, e, q: 2 * d * e + 2 * 3 * (e * e + e),
    "qrnn": lambda d, e, q: 6 * d * e + 3 * e,
    "sru": lambda d, e, q: 3 * d * e + 4 * e,
    "mingru": lambda d, e, q: 2 * (d * e + e),
    "mingru_log": lambda d, e, q: 2 * d * e,
    "minlstm": lambda d, e, q: 3 * d * e,
    "t_rnn": lambda d, e, q: 2 * d * e + e,
    "lru": lambda d, e, q: 3 * e + 4 * d * e + d,
    "rglru": lambda d, e, q: 2 * (d * e + e) + e,
    "antisymmetric": lambda d, e, q: d * e + e * e + e,
    "cornn": lambda d, e, q: d * e + 2 * e * e + e,
    "li_spiking": lambda d, e, q: d * e + e * e,
    "ln_gru": lambda d, e, q: 3 * d * e + 3 * e * e + 12 * e,
    "weight_drop_lstm": lambda d, e, q: 4 * (d * e + 2 * e * e + e),
    "cayley_rnn": lambda d, e, q: d * e + e * e + 2 * e,
    "zoneout_gru": lambda d, e, q: 3 * (d * e + e * e + e),
    "gla": lambda d, e, q, r: 2 * d * q + d * e + r * d + q * r + q,
    "retnet": lambda d, e, q: 2 * d * q + d * e,
    "hgrn2": lambda d, e, q: 2 * (d * q + q) + d * e + e,
    "fast_weights": lambda d, e, q: 2 * d * q + d * e,
    "deltanet": lambda d, e, q: 2 * d * q + d * e + d,
    "gated_deltanet": lambda d, e, q: 2 * d * q + d * e + 2 * d + 2,
    "matrix_lstm": lambda d, e, q: 2 * (d * q + q) + 2 * (d * e + e) + 2 * (d + 1),
    "mamba": lambda e, q, r: 3 * e * q + 2 * e * r + 2 * e,
    "mamba2": lambda d, e, q: 2 * d * q + d * e + d + 3,
    "rwkv6": lambda d, e, q, r: 2 * d * q + 2 * d * e + 6 * d + 11 * r * d + r * q + 2 * q + 2 * e,
    "rwkv7": lambda d, e, q, r: 2 * d * q + d * e + 6 * d + 3 * r * d + 2 * r * q + r * e + 5 * q + 2 * e,
    "paragru": lambda d, e: 3 * (d * e + 2 * e),
    "paralstm": lambda d, e: 3 * (d * e + 2 * e) + 2 * e,
    "slstm_heads": lambda d, e: 4 * (d * e + 2 * e),
    "griffin": lambda e: 5 * e,
    "ntm": lambda d, e, q, r: d * e + 5 * r * e + e + 6 * r + 2 * (6 * e + 6 + q),
    "dcgru": lambda d, e, q: 3 * (5 * d * e + 5 * e * e + e) + 2 * q * q,
    "conv_gru": lambda d, e: 9 * (d * e + e * e),
    "conv_lstm": lambda d, e, q: 12 * (d * e + e * e) + 3 * q * e + 4 * e,
}
