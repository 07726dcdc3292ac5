"""What an embedding must be before it is compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbllm.errors import UnusableVector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


def unit_vector(values: ArrayLike, *, dimensions: int | None = None) -> NDArray[np.float32]:
    """Return one embedding, shape (d,), as float32 of unit length.

    dimensions: what d must be; None: anything. Raises UnusableVector for another shape, for zeros (a zero vector is near to
    nothing and far from nothing), and for numbers that are not finite.
    """
    import numpy as np

    try:
        vector = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as exc:
        raise UnusableVector(f"The embedding is not a list of numbers: {exc}.", hint=_HINT) from exc
    if vector.ndim != 1 or vector.size == 0:
        raise UnusableVector(f"The embedding has shape {vector.shape}; one text has one vector, shape (d,).", hint=_HINT)
    if dimensions is not None and vector.size != dimensions:
        raise UnusableVector(
            f"The embedding has {vector.size} dimensions, those before it had {dimensions}: they cannot be compared.",
            hint="The embedder has changed. Name its new version, which begins a new partition, or forget the old one.",
        )
    largest = float(np.abs(vector).max())  # NaN and infinity come through as what they are
    if not np.isfinite(largest):
        raise UnusableVector("The embedding holds numbers that are not finite.", hint=_HINT)
    if largest == 0.0:
        raise UnusableVector("The embedding is all zeros.", hint=_HINT)
    scaled = vector / largest  # so that squares neither overflow nor vanish
    return (scaled / np.sqrt(scaled @ scaled)).astype(np.float32)


_HINT = "Look at what the embedder returns for this text."
