"""The run's repository on the Hub, for its last checkpoint and the finished model."""

import shutil
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
)

from common.errors import first_line
from common.retry import GaveUp, NetworkFault, persist
from training.checkpoints import HUB_FILE, CheckpointError

PICKLES = ["*.bin", "*.pt", "*.pth"]
"""What a model directory of an earlier version may hold and nobody needs."""
PATIENCE = 120.0
"""Seconds for which pushing the finished model, or looking for a checkpoint, is retried."""


class HubRepository:
    """
    Args:
        name: repository id `user/name`, or a bare name in the account that is signed in.
        private: whether a new repository is created as private.
        token: of an account with write access; `None` uses the one of `hf auth login`.

    Raises:
        CheckpointError: no account is signed in, or the Hub does not respond.
    """

    def __init__(self, name: str, private: bool = False, token: str | None = None):
        self.api = HfApi(token=token)
        self.private = private
        try:
            self.name = name if "/" in name else f"{self._persist(self.api.whoami)['name']}/{name}"
            self._persist(self._create)
        except HFValidationError as error:
            raise CheckpointError(
                f"--hub_model_id {name!r} is not a valid repository name ({first_line(error)})"
            ) from None
        except (LocalTokenNotFoundError, HfHubHTTPError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"cannot push to {name} on the Hub ({reason}); run hf auth login") from None
        except GaveUp as error:
            raise CheckpointError(f"cannot push to the Hub: {error}; leave out --push_to_hub or try later") from None

    def _persist(self, action):
        return persist(action, f"{self.api.endpoint}", PATIENCE)

    def _create(self) -> None:
        self.api.create_repo(self.name, private=self.private, exist_ok=True)

    def has_checkpoint(self) -> bool:
        return self._persist(lambda: self.api.file_exists(self.name, HUB_FILE))

    def upload_checkpoint(self, archive: Path) -> None:
        """Replace the last checkpoint in the repository with a packed one."""
        self.api.upload_file(
            path_or_fileobj=archive, path_in_repo=HUB_FILE, repo_id=self.name, commit_message="Checkpoint"
        )

    def download_checkpoint(self, directory: Path) -> Path | None:
        """Download the packed last checkpoint to `directory`; `None` if there is none.

        Raises:
            OSError: the Hub does not respond.
        """

        def download() -> Path | None:
            try:
                return Path(self.api.hf_hub_download(self.name, HUB_FILE, local_dir=directory))
            except LocalEntryNotFoundError:  # the Hub did not respond
                raise
            except (RepositoryNotFoundError, EntryNotFoundError):
                return None
            except OSError as error:
                if type(error) is OSError:  # what came is not of the size announced, and would be gone on with
                    shutil.rmtree(directory, ignore_errors=True)
                    raise NetworkFault(first_line(error)) from None
                raise

        return self._persist(download)

    def upload_model(self, directory: Path) -> str:
        """Push a model directory (weights, remote code, ONNX, card) to the root of the repository; returns its URL.

        Raises:
            OSError: the Hub rejects it or does not respond.
        """
        self._persist(
            lambda: self.api.upload_folder(
                repo_id=self.name, folder_path=directory, commit_message="Model", ignore_patterns=PICKLES
            )
        )
        return f"{self.api.endpoint}/{self.name}"
