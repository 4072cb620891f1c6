"""The primary dialect, slash notation: a hand-written recursive descent over the grammar of docs/notation.md."""

from __future__ import annotations

from msgspec.structs import replace

from einscale.dtypes import ALIASES, BITS, dtype, is_dtype
from einscale.errors import NotationError, did_you_mean, near_miss
from einscale.notation.syntax import ELLIPSIS, REDUCTIONS, Axis, Group, Partial, Shard, Span, Spec, TensorSpec
from einscale.notation.tokens import Token, shorten, tokenize, whole_number
from einscale.vocabulary import SUM, Reduction

_AFTER_TENSOR = "an axis, `...`, `*name`, `(a b)`, `{U:x}`, `?`, `,` or `->`"


class Cursor:
    """A place in the tokens of one text."""

    __slots__ = ("at", "text", "tokens")

    def __init__(self, text: str) -> None:
        """Read `text` into tokens."""
        self.text = text
        self.tokens = tokenize(text)
        self.at = 0

    def peek(self, ahead: int = 0) -> Token:
        """The token to come, or one further on; the end stays the end."""
        return self.tokens[min(self.at + ahead, len(self.tokens) - 1)]

    def take(self) -> Token:
        """The token to come, passed."""
        token = self.peek()
        self.at += 1
        return token

    def accept(self, kind: str) -> Token | None:
        """The token to come, passed, if it is of this kind."""
        return self.take() if self.peek().kind == kind else None

    def fail(
        self, message: str, where: Token | Span | None = None, *, expected: str | None = None, hint: str | None = None
    ) -> NotationError:
        """An error at a token, a span, or the token to come."""
        span = where if isinstance(where, tuple) else (where or self.peek()).span
        return NotationError(message, text=self.text, span=span, expected=expected, hint=hint)


def parse_slash(text: str) -> Spec:
    """Syntax of a spec in slash notation; what it means is not checked here.

    Raises:
        NotationError: the text does not follow the grammar.
    """
    cursor = Cursor(text)
    if cursor.peek().kind == "end":
        raise NotationError("the spec is empty", expected="a text such as `B/data D, D F/model -> B/data F/model`")
    operands = [_operand(cursor)]
    while cursor.accept(","):
        operands.append(_operand(cursor))
    output = None
    if cursor.accept("->"):
        output = _tensor(cursor)
        if cursor.peek().kind in {",", "->"}:
            token = cursor.peek()
            message = "a second `->`" if token.kind == "->" else "a `,` after `->`"
            raise cursor.fail(message, token, expected="one output, the last thing in a spec")
    return Spec(tuple(operands), output, text, "slash")


def parse_slash_tensor(text: str) -> TensorSpec:
    """Syntax of one tensor in slash notation.

    Raises:
        NotationError: the text does not follow the grammar, or holds more than one tensor.
    """
    cursor = Cursor(text)
    if cursor.peek().kind == "end":
        raise NotationError("the tensor is empty", expected="a text such as `B/data S D`")
    tensor = _tensor(cursor)
    if cursor.peek().kind != "end":
        raise cursor.fail(f"unexpected `{cursor.peek().text}`", expected="one tensor")
    return tensor


def _operand(cursor: Cursor) -> TensorSpec:
    tensor = _tensor(cursor)
    if not tensor.dims and tensor.name is None and tensor.dtype is None:
        raise cursor.fail(
            "an empty operand" if tensor.partial is None and not tensor.open else "an operand without axes",
            expected="an axis; a scalar operand has a name or a dtype: `A:` or `bf16[]`",
            hint="numpy's empty operand is read in syntax numpy (`--syntax numpy`)",
        )
    return tensor


def _tensor(cursor: Cursor) -> TensorSpec:
    first = cursor.peek()
    name: Token | None = None
    if first.kind == "name" and cursor.peek(1).kind == ":":
        name = cursor.take()
        cursor.take()
    element: str | None = None
    word, bracket = cursor.peek(), cursor.peek(1)
    if bracket.kind == "(" and word.stop == bracket.start and word.kind == "name" and is_dtype(word.text):
        hint = f"a group after an axis named `{word.text}` needs a blank before it"
        raise cursor.fail("`(` after a dtype", bracket, expected=f"`{word.text}[...]`", hint=hint)
    if word.kind == "name" and bracket.kind == "[":
        element = _dtype(cursor)
        cursor.take()
        tensor = _body(cursor)
        if not cursor.accept("]"):
            if cursor.peek().kind in {"end", "->"}:
                raise cursor.fail("`[` is never closed", bracket, expected="`]`")
            raise _misplaced(cursor, inside=True)
        if cursor.peek().kind not in {",", "->", "end"}:
            inner = "`{U:x}` and `?` belong inside the brackets" if cursor.peek().kind in {"{", "?"} else None
            raise cursor.fail(f"unexpected `{cursor.peek().text}` after `]`", expected="`,` or `->`", hint=inner)
    else:
        tensor = _body(cursor)
        if cursor.peek().kind not in {",", "->", "end"}:
            raise _misplaced(cursor, inside=False)
    last = cursor.tokens[cursor.at - 1] if cursor.at else first
    return replace(
        tensor,
        name=name.text if name else None,
        dtype=element,
        span=(first.start, max(first.start, last.stop)),
        name_span=name.span if name else (0, 0),
    )


def _dtype(cursor: Cursor) -> str:
    token = cursor.take()
    if not is_dtype(token.text):
        near = near_miss(token.text, BITS) or near_miss(token.text, ALIASES)
        raise cursor.fail(
            f"unknown dtype `{token.text}`",
            token,
            expected="a dtype before `[`",
            hint=f"did you mean `{near}`?" if near else f"dtypes: {', '.join(BITS)}",
        )
    return dtype(token.text)


def _body(cursor: Cursor) -> TensorSpec:
    dims: list[Axis | Group] = []
    while (token := cursor.peek()).kind in {"name", "number", ELLIPSIS, "*", "("}:
        if token.kind in {"name", "number"}:
            dims.append(_axis(cursor))
        elif token.kind == ELLIPSIS:
            dims.append(_ellipsis(cursor, dims))
        elif token.kind == "*":
            dims.append(_family(cursor))
        else:
            dims.append(_group(cursor))
    partials: list[Partial] = []
    while cursor.peek().kind == "{":
        partials.append(_partial(cursor))
    is_open = cursor.accept("?") is not None
    return TensorSpec(tuple(dims), partial=_merged(cursor, partials), open=is_open)


def _axis(cursor: Cursor) -> Axis:
    token = cursor.take()
    name, size, size_span = token.text, None, (0, 0)
    if token.kind == "number":
        size, size_span = whole_number(cursor.text, token), token.span
        name = str(size)
    if cursor.accept("="):
        written = cursor.peek()
        if written.kind != "number":
            raise cursor.fail(f"the size of `{name}` is missing", expected="a whole number after `=`")
        value = whole_number(cursor.text, cursor.take())
        if size is not None and size != value:
            message = f"an axis of fixed size {size} cannot have size {value}"
            raise cursor.fail(message, written, hint=f"write `{value}`, or give the axis a name: `n={value}`")
        size, size_span = value, written.span
    if cursor.peek().kind == "=":
        raise cursor.fail(f"a second size for `{name}`", expected=f"one: `{name}={size}`")
    shards, is_open = _shards(cursor)
    if cursor.peek().kind == "=":
        hint = f"write `{name}=SIZE/{'/'.join([shard.name for shard in shards] or ['?'])}`"
        raise cursor.fail("a size after the mesh axes", expected="the size before the first `/`", hint=hint)
    stop = cursor.tokens[cursor.at - 1].stop
    return Axis(name, size, shards, is_open, False, (token.start, stop), token.span, size_span)


def _shards(cursor: Cursor) -> tuple[tuple[Shard, ...], bool]:
    shards: list[Shard] = []
    while slash := cursor.accept("/"):
        previous, following = cursor.tokens[cursor.at - 2], cursor.peek()
        if previous.stop < slash.start or (slash.stop < following.start and following.kind in {"name", "?"}):
            raise cursor.fail("a blank beside `/`", slash, expected="mesh axes without blanks: `B/pod/data`")
        if cursor.accept("?"):
            if cursor.peek().kind == "/":
                raise cursor.fail("a mesh axis after `/?`", expected="`/?` last: `B/x/?`")
            return tuple(shards), True
        shards.append(read_mesh_axis(cursor, slash, "after `/`"))
    return tuple(shards), False


def read_mesh_axis(cursor: Cursor, before: Token, where: str) -> Shard:
    """One mesh axis, or a part of one; `before` is the mark it follows, `where` says so in words.

    Raises:
        NotationError: there is none.
    """
    token = cursor.peek()
    if token.kind == "number":
        hint = f"name a mesh axis of that many devices: `x` on mesh `x={token.text}`" if token.text.isdigit() else None
        raise cursor.fail(f"`{shorten(token.text)}` is not a mesh axis", expected=f"a name {where}", hint=hint)
    if token.kind == "/":
        span = (before.start, token.stop)
        raise cursor.fail("a mesh axis is missing between `/` and `/`", span, hint="a sum still owed is `{U:x}`")
    if token.kind != "name":
        raise cursor.fail(f"a mesh axis is missing {where}", expected="the name of a mesh axis")
    cursor.take()
    if cursor.peek().kind != ":":
        return Shard(token.text, token.span)
    return _sub_axis(cursor, token)


def _sub_axis(cursor: Cursor, token: Token) -> Shard:
    """A part of a mesh axis, `x:(BEFORE)SIZE`, written without blanks."""
    marks = [cursor.peek(ahead) for ahead in range(5)]
    kinds = [mark.kind for mark in marks]
    joined = all(before.stop == after.start for before, after in zip([token, *marks], marks, strict=False))
    if kinds != [":", "(", "number", ")", "number"] or not joined:
        count = next((k for k, kind in enumerate([":", "(", "number", ")", "number"]) if kinds[k] != kind), 5)
        hint = "a tensor's name comes first: `x: B D`" if count == 1 else None
        span = (token.start, marks[max(0, count - 1)].stop)
        expected = f"`{token.text}:(BEFORE)SIZE`, for example `{token.text}:(2)4`"
        raise cursor.fail(f"a malformed part of mesh axis `{token.text}`", span, expected=expected, hint=hint)
    before = whole_number(cursor.text, marks[2], "number of shards before")
    size = whole_number(cursor.text, marks[4], "size of a part")
    cursor.at += 5
    return Shard(f"{token.text}:({before}){size}", (token.start, marks[4].stop))


def _ellipsis(cursor: Cursor, before: list[Axis | Group]) -> Axis:
    token = cursor.take()
    if any(isinstance(dim, Axis) and dim.name == ELLIPSIS for dim in before):
        raise cursor.fail("a second `...` in one tensor", token)
    if cursor.peek().kind == "/":
        raise cursor.fail("`...` is never sharded", (token.start, cursor.peek().stop), hint="name it: `*batch/x`")
    if cursor.peek().kind == "=":
        raise cursor.fail("`...` has no size", (token.start, cursor.peek().stop), hint="name it: `*batch=32`")
    return Axis(ELLIPSIS, span=token.span, name_span=token.span)


def _family(cursor: Cursor) -> Axis:
    star = cursor.take()
    if cursor.peek().kind != "name" or cursor.peek().start != star.stop:
        hint = "operands are separated by `,`" if cursor.peek().kind == "name" else None
        raise cursor.fail("a `*` without a name", star, expected="`*name`, several axes under one name", hint=hint)
    axis = _axis(cursor)
    return replace(axis, family=True, span=(star.start, axis.span[1]))


def _group(cursor: Cursor) -> Group:
    parenthesis = cursor.take()
    axes: list[Axis] = []
    while cursor.peek().kind in {"name", "number"}:
        axes.append(_axis(cursor))
    token = cursor.peek()
    if token.kind == "(":
        raise cursor.fail("a group inside a group", token, expected="one level of parentheses")
    if token.kind in {ELLIPSIS, "*"}:
        raise cursor.fail(f"`{token.text}` inside a group", token, expected="named axes: `(h d)`")
    if token.kind in {"{", "?"}:
        raise cursor.fail(f"`{token.text}` inside a group", token, hint="`{U:x}` and `?` come last in a tensor")
    if token.kind == ",":
        raise cursor.fail("a `,` inside a group", token, expected="axes separated by blanks: `(h d)`")
    if token.kind != ")":
        if token.kind in {"end", "->", "]"}:
            raise cursor.fail("`(` is never closed", parenthesis, expected="`)`")
        raise cursor.fail(f"unexpected `{token.text}` inside a group", expected="an axis or `)`")
    close = cursor.take()
    if not axes:
        raise cursor.fail("an empty group", (parenthesis.start, close.stop), expected="at least one axis: `(h d)`")
    group = Group(tuple(axes), (parenthesis.start, close.stop))
    if cursor.peek().kind in {"/", "="}:
        raise _group_suffix(cursor, group)
    return group


def _group_suffix(cursor: Cursor, group: Group) -> NotationError:
    """The error for `(h d)/t` or `(h d)=8`, with what to write."""
    token = cursor.peek()
    if token.kind == "=":
        hint = "a size goes on a factor: `(h=8 d)`"
        return cursor.fail("a size on a group", (group.span[0], token.stop), expected="sizes on its factors", hint=hint)
    shards, is_open = _shards(cursor)
    first = replace(group.axes[0], shards=group.axes[0].shards + shards, open=group.axes[0].open or is_open)
    better = Group((first, *group.axes[1:]))
    span = (group.span[0], cursor.tokens[cursor.at - 1].stop)
    expected = "mesh axes on its factors"
    return cursor.fail("a group is not sharded as a whole", span, expected=expected, hint=f"write `{better}`")


def _partial(cursor: Cursor) -> Partial:
    brace = cursor.take()
    marker = cursor.peek()
    if marker.kind != "name" or marker.text != "U":
        raise _bad_marker(cursor, marker)
    cursor.take()
    reduction = _reduction(cursor) if cursor.accept("(") else SUM
    colon = cursor.accept(":")
    if colon is None:
        raise cursor.fail("`:` is missing after `U`", expected="`{U:x}`")
    if cursor.accept("?"):
        axes: list[Shard] = []
        if cursor.peek().kind == ",":
            raise cursor.fail("`?` beside mesh axes", expected="either `{U:?}` or `{U:x,y}`")
    else:
        axes = [read_mesh_axis(cursor, colon, "in `{U:...}`")]
        while comma := cursor.accept(","):
            if cursor.peek().kind == "?":
                raise cursor.fail("`?` beside mesh axes", expected="either `{U:?}` or `{U:x,y}`")
            axes.append(read_mesh_axis(cursor, comma, "in `{U:...}`"))
    close = cursor.accept("}")
    if close is None:
        if cursor.peek().kind not in {"end", "->"}:
            raise cursor.fail(f"unexpected `{cursor.peek().text}` in `{{U:...}}`", expected="`,` or `}`")
        raise cursor.fail("`{` is never closed", brace, expected="`}`")
    return Partial(reduction, tuple(axes), not axes, (brace.start, close.stop))


def _bad_marker(cursor: Cursor, marker: Token) -> NotationError:
    """The error for a `{` that no `U` follows."""
    hint = None
    if marker.text == "u":
        hint = "did you mean `U`?"
    elif marker.text == "R":
        hint = "a replicated axis is a bare axis; `R` is JAX's word for reduced"
    elif marker.text.startswith("U_"):
        hint = f"write `{{U:{marker.text[2:] or 'x'}}}`"
    elif cursor.peek(1).kind == "}":
        hint = f"write `{{U:{marker.text}}}`"
    if marker.kind != "name":
        return cursor.fail("`U` is missing after `{`", expected="`{U:x}`, a sum still owed over mesh axis x")
    return cursor.fail(f"unknown mark `{marker.text}`", expected="`{U:x}`, a sum still owed", hint=hint)


def _reduction(cursor: Cursor) -> Reduction:
    token = cursor.take()
    if token.text not in REDUCTIONS:
        hint = did_you_mean(token.text, REDUCTIONS, "reductions")
        raise cursor.fail(f"unknown reduction `{shorten(token.text)}`", token, hint=hint)
    if not cursor.accept(")"):
        raise cursor.fail("`)` is missing after the reduction", expected=f"`{{U({token.text}):x}}`")
    return Reduction(token.text)


def _merged(cursor: Cursor, partials: list[Partial]) -> Partial | None:
    """All marks of a tensor as one, its mesh axes sorted: order means nothing there."""
    if not partials:
        return None
    first = partials[0]
    for other in partials[1:]:
        if other.reduction != first.reduction:
            message = f"one tensor owes both a {first.reduction} and a {other.reduction}"
            raise cursor.fail(message, other.span, expected="one reduction per tensor")
        if first.open or other.open:
            raise cursor.fail("`{U:?}` beside another `{U:...}`", other.span, expected="either one or the other")
    axes = sorted((axis for partial in partials for axis in partial.axes), key=lambda axis: axis.name)
    return Partial(first.reduction, tuple(axes), first.open, (first.span[0], partials[-1].span[1]))


def _misplaced(cursor: Cursor, *, inside: bool) -> NotationError:
    """The error for a token that cannot follow the body of a tensor."""
    token = cursor.peek()
    previous = cursor.tokens[cursor.at - 1] if cursor.at else None
    if token.kind in {"name", "number", ELLIPSIS, "*", "(", "{", "?"}:
        if previous is not None and previous.kind == "?":
            if token.kind == "?":
                return cursor.fail("a second `?`", token)
            opened = cursor.tokens[cursor.at - 2]
            hint = (
                f"one open axis is written `{opened.text}/?`" if opened.kind == "name" and token.kind != "{" else None
            )
            return cursor.fail(f"`{token.text}` after `?`", token, expected="`?` last in a tensor", hint=hint)
        return cursor.fail(f"`{token.text}` after `{{U:...}}`", token, expected="axes before `{U:...}`")
    if inside and token.kind == ",":
        hint = "the scaling book's `A[I_X, J]` is read in syntax book (`--syntax book`)"
        return cursor.fail("a `,` inside brackets", token, expected="axes separated by blanks", hint=hint)
    messages = {
        "/": ("a `/` without an axis before it", "an axis, then `/` and a mesh axis: `B/data`", None),
        "=": ("a `=` without an axis before it", "an axis, then `=` and its size: `B=32`", None),
        ":": ("a `:` inside a tensor", "a tensor's name first, then `:`", None),
        "[": ("`[` without a dtype before it", "`bf16[B D]`", None),
        ")": ("`)` closes nothing", None, None),
        "]": ("`]` closes nothing", None, None),
        "}": ("`}` closes nothing", None, None),
    }
    message, expected, hint = messages.get(token.kind, (f"unexpected `{token.text}`", _AFTER_TENSOR, None))
    return cursor.fail(message, token, expected=expected, hint=hint)
