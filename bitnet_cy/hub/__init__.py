"""Models by name: repositories of the Hugging Face Hub, and the cache they are kept in.

`reference` reads names, `cache` knows what is on disk, `choice` picks the files of a repository,
`download` alone speaks to the network, and `pull` joins them. huggingface_hub, which the optional
extra `hub` brings, is imported only where something may have to be downloaded.
"""

from bitnet_cy.hub.pull import Pulled, locate, pull

__all__ = ["Pulled", "locate", "pull"]
