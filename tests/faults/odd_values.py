"""Values that no key, option, prompt or reward expects."""

import random

NUMBERS = (
    *(0, 1, 2, 3, -1, -7, 0.5, 1.5, -0.0, 1e-300, 1e300, 10**12, 10**30, -(10**30)),
    *(float("nan"), float("inf"), float("-inf"), 2**63, 2**64, 1e-16, 5e-324),
)
TEXTS = (
    *("", " ", "x", "0", "-1", "nan", "inf", "1e999", "null", "None", "true", "~", "-", "--", "%s"),
    *("{}", "[]", "{0}", "a b", "a=b", "=", "a=", "=b", "..=1", "a.b.c=1", "\n", "\t", "\r\n"),
    *("é", "日本語", "\u202e", "\u2028", "\x1b[31m", "\x00", "\ud800", "🦀", "a" * 300),
    *("../x", "/", ".", "..", "~/x", "/dev/null", "/dev/full", "nowhere/at/all", "a/" * 200),
    *("best-of-n", "best-of-n:", "best-of-n:0", "best-of-n:2", "best-of-n:-1", "best-of-n:1e3"),
    *("best-of-n:1000000000", "worst-of-n:2", "majority-vote:3", "rewind:0.5:4", "sampling"),
    *("soft-best-of-n:2:0.5", "mixture:", "order-statistic:3:2", "power:2", "exponential:1"),
    *("python:", "python:os:system", "python:rewards:early", "python:rewards:nothing"),
    *("python:no.such:thing", "http://", "http://[", "https://127.0.0.1:1/v1#m", "vllm:x"),
    *("bundled:harmless", "bundled:nothing", "reward:", "file:///etc/passwd", "[red]x[/red]"),
    *("<script>alert(1)</script>", "\\textbf{x}", "$x^", "| a | b |", "*", "&", "#", "'", '"'),
)


def scalar(rng: random.Random):
    """A number, a text, a truth value or nothing."""
    kind = rng.randrange(10)
    if kind < 4:
        return rng.choice(NUMBERS)
    if kind < 8:
        return rng.choice(TEXTS)
    return rng.choice((None, True, False))


def value(rng: random.Random, depth: int = 0):
    """A scalar, or a list or mapping of values."""
    kind = rng.randrange(10)
    if depth > 3 or kind < 7:
        return scalar(rng)
    if kind == 7:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 8:
        return {text(rng): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    nested = scalar(rng)
    for _ in range(rng.choice((5, 50))):
        nested = [nested] if rng.random() < 0.5 else {"a": nested}
    return nested


def text(rng: random.Random) -> str:
    """One of the odd texts, or two in a row."""
    return rng.choice(TEXTS) + (rng.choice(TEXTS) if rng.random() < 0.1 else "")


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Bytes with a few of them changed, lost, repeated or added."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at = rng.randrange(len(content) + 1)
        match rng.randrange(5):
            case 0 if at < len(content):
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                del content[at : at + rng.choice((1, 5, 50))]
            case 2:
                content[at:at] = content[at : at + rng.choice((1, 5, 50))]
            case 3:
                content[at:at] = rng.choice(
                    (
                        b"\x00",
                        b"\xff",
                        b"\xef\xbb\xbf",
                        b"\n",
                        b"\r",
                        b"{",
                        b"]",
                        b'"',
                        b"\\",
                        b"\t",
                    )
                )
            case _:
                content[at:at] = text(rng).encode(errors="surrogatepass")
    return bytes(content)
