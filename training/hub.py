"""The run's repository on the Hub: its last checkpoint, and the finished model."""

from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

from training.checkpoints import HUB_FILE


class HubRepository:
    """
    Args:
        name: repository id, `user/name`, or a bare name for one's own account.
        private: whether a repository that does not exist yet is made private.
    """

    def __init__(self, name: str, private: bool = False):
        self.api = HfApi()
        self.name = name if "/" in name else f"{self.api.whoami()['name']}/{name}"
        self.private = private

    def upload_checkpoint(self, archive: Path) -> None:
        """Replace the repository's last checkpoint by a packed one."""
        self.api.create_repo(self.name, private=self.private, exist_ok=True)
        self.api.upload_file(
            path_or_fileobj=archive, path_in_repo=HUB_FILE, repo_id=self.name, commit_message="Checkpoint"
        )

    def download_checkpoint(self) -> Path | None:
        """The packed last checkpoint as a local file, or `None` where there is none."""
        try:
            return Path(hf_hub_download(self.name, HUB_FILE))
        except (RepositoryNotFoundError, EntryNotFoundError):
            return None

    def upload_model(self, directory: Path) -> str:
        """Push a model directory (weights, remote code, ONNX, card) to the top of the repository."""
        self.api.create_repo(self.name, private=self.private, exist_ok=True)
        self.api.upload_folder(repo_id=self.name, folder_path=directory, commit_message="Model")
        return f"{self.api.endpoint}/{self.name}"
