"""Which chat template a model gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitnet_cy.errors import UnsupportedError

if TYPE_CHECKING:
    from bitnet_cy.tokenizer import Tokenizer

_END = "<|eot_id|>"

# As in the tokenizer_config.json of microsoft/bitnet-b1.58-2B-4T.
BITNET = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ message['role'] | capitalize }}: {{ message['content'] | trim }}<|eot_id|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)

# The prompt format of Llama 3 Instruct, of which Llama3-8B-1.58 is a fine-tune.
LLAMA3 = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{{ message['content'] | trim }}<|eot_id|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
    "{% endif %}"
)

# What the converter of the official GGUF files wrote in place of the model's template. It
# ignores system messages and makes the model repeat itself.
_PLACEHOLDER = "BITNETAssistant"


def choose(tokenizer: Tokenizer, architecture: str) -> str:
    """The file's own template, unless it is known to be wrong.

    The converter's placeholder is replaced by BitNet-b1.58-2B-4T's template. A Llama file without
    one whose text ends with `<|eot_id|>` is a Llama 3 Instruct model and gets its headers.
    Raises UnsupportedError for a model that has no chat format.
    """
    template, names = tokenizer.chat_template, tokenizer.special_tokens
    if template is not None and _PLACEHOLDER in template:
        template = BITNET if architecture.startswith("bitnet") and _END in names else None
    elif template is None and architecture == "llama" and "<|start_header_id|>" in names:
        template = LLAMA3 if tokenizer.eos_id == names.get(_END) else None
    if template is None:
        raise UnsupportedError(
            "this model has no chat template, so it is a base model that continues text: "
            "use generate instead of chat"
        )
    return template
