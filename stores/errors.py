"""What can go wrong with a store, as one tree.

```
StoreError(ValueError)           the family: every message names the value, the place and the remedy
|-- SchemaMismatchError          other columns, shapes or dtypes than the schema
|-- FingerprintMismatchError     the store was made by other models or settings
|-- ManifestError                the table of contents cannot be read or contradicts itself
|-- ShardCorruptError            a file's bytes are not those that were committed
|-- StoreBusyError               another run holds the store
|-- OutOfSpaceError              the disk, the quota or the file size limit is full
|-- ObjectStoreError             an object store does not answer, or refuses
|-- KeyNotFoundError(KeyError)   no row has this key
`-- SourceError                  an input, or a whole source, cannot be read (`reason`, `detail`)
    `-- KeyCollisionError        two different inputs would get one key
```
"""


class StoreError(ValueError):
    """Anything wrong with a store, its inputs or its files."""


class SchemaMismatchError(StoreError):
    """Columns, shapes or dtypes differ from the schema."""


class FingerprintMismatchError(StoreError):
    """The values of this store were made by other models or settings."""


class ManifestError(StoreError):
    """A manifest or a commit mark cannot be read, or contradicts itself."""


class ShardCorruptError(StoreError):
    """A file is missing, cut or changed since it was committed."""


class StoreBusyError(StoreError):
    """Another run holds the store."""


class OutOfSpaceError(StoreError):
    """There is no room for a file; what was committed before is safe."""


class ObjectStoreError(StoreError):
    """An object store cannot be reached, or refuses what was asked of it."""


class KeyNotFoundError(StoreError, KeyError):
    """No row of the store has this key."""

    def __str__(self) -> str:
        """The message itself; `KeyError` would show its repr."""
        return str(self.args[0])


class SourceError(StoreError):
    """An input or a source cannot be read.

    Attributes:
        reason: One word for tables: `unreadable`, `broken_symlink`, `missing`, `not_a_file`,
            `empty`, `key_collision`.
        detail: What was found, where, and what to do.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        """The detail, with the reason in front."""
        return f"{self.reason}: {self.detail}"


class KeyCollisionError(SourceError):
    """Two different inputs would get the same key."""

    def __init__(self, detail: str) -> None:
        super().__init__("key_collision", detail)

    def __reduce__(self) -> tuple[type["KeyCollisionError"], tuple[str]]:
        """Pickled by its one argument, so that it crosses process borders."""
        return type(self), (self.detail,)
