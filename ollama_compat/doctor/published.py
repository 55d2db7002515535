"""Well-known models by the shapes of their published configurations, in the quantisation that people download (Q4_K_M, or
MXFP4 where the model was published in it)."""

from __future__ import annotations

import dataclasses

from ollama_compat.doctor.shape import Shape, Weights

RECURRENT = {"qwen3next", "qwen35moe"}
WINDOWS = {"gpt-oss": 128}  # tokens that every other layer of theirs looks back at
STATE = 32 * 128 * 128  # values that one of their layers keeps of a text: a matrix for each value head


@dataclasses.dataclass(frozen=True, slots=True)
class Published:
    """A line of the table. `always`: parameters in billions that every token reads: all but routed experts and the table."""

    name: str
    architecture: str
    layers: int
    expert_layers: int
    embedding_length: int
    expert_feed_forward_length: int  # of a dense model: its feed_forward_length
    expert_count: int
    expert_used_count: int
    always: float
    n_vocab: int
    query_width: int
    cache_kib: float  # a token, f16
    context_length: int
    experts_type: str = "Q4_K_M"

    @property
    def recurrent_layers(self) -> int:
        """Three of four layers where there are any."""
        return self.layers * 3 // 4 if self.architecture in RECURRENT else 0

    @property
    def expert_values(self) -> int:
        """Of all routed experts."""
        return 3 * self.expert_layers * self.expert_count * self.embedding_length * self.expert_feed_forward_length

    @property
    def parameters(self) -> float:
        """Billions in all."""
        return self.expert_values / 1e9 + self.always + self.n_vocab * self.embedding_length / 1e9

    def shape(self) -> Shape:
        """With the types that a file in this quantisation has."""
        return Shape(
            name=self.name,
            architecture=self.architecture,
            weights=tuple(part for part in (*self._always(), *self._experts()) if part.values > 0),
            table_bytes=self.n_vocab * self.embedding_length // 256 * (144 if self.experts_type == "Q4_K_M" else 272),
            layers=self.layers,
            expert_layers=self.expert_layers,
            embedding_length=self.embedding_length,
            hidden_width=self.expert_feed_forward_length * max(1, self.expert_used_count),
            head_count=self.query_width // 256,  # a key and a value of 128, or as good as that
            query_width=self.query_width,
            cache_bytes=int(self.cache_kib * 1024),
            expert_count=self.expert_count,
            expert_used_count=self.expert_used_count,
            context_length=self.context_length,
            recurrent_layers=self.recurrent_layers,
            state_values=self.recurrent_layers * STATE,
            window=WINDOWS.get(self.architecture, 0),
            window_layers=self.layers // 2 if self.architecture in WINDOWS else 0,
        )

    def _always(self) -> tuple[Weights, ...]:
        """Attention, shared and dense layers; the output in Q6_K; routers in F32."""
        output = self.n_vocab * self.embedding_length
        routers = self.expert_layers * self.expert_count * self.embedding_length
        others = int(self.always * 1e9) - output - routers
        width = self.embedding_length
        router = Weights("F32", routers, routers // width)
        if self.experts_type != "Q4_K_M":
            return (
                Weights("Q8_0", others, others // width),
                Weights("Q8_0", output, self.n_vocab, last_only=True),
                router,
            )
        high = others // 8  # half of the value and down matrices have more bits
        return (
            Weights("Q4_K", others - high, (others - high) // width),
            Weights("Q6_K", high, high // width),
            Weights("Q6_K", output, self.n_vocab, last_only=True),
            router,
        )

    def _experts(self) -> tuple[Weights, ...]:
        """Gate and up in Q4_K, half of the down matrices in Q6_K; rows that are no multiple of 256 fall back to small blocks."""
        if not self.expert_count:
            return ()
        share = self.expert_used_count / self.expert_count
        if self.experts_type != "Q4_K_M":
            return (self._stack(self.experts_type, 3, share),)
        low, high = ("Q4_K", "Q6_K") if self.expert_feed_forward_length % 256 == 0 else ("Q5_0", "Q8_0")
        return self._stack("Q4_K", 2, share), self._stack(low, 0.5, share), self._stack(high, 0.5, share)

    def _stack(self, type_name: str, matrices: float, share: float) -> Weights:
        """So many of the three matrices of every expert."""
        values = int(self.expert_values * matrices / 3)
        return Weights(type_name, values, values // self.embedding_length, share)


MODELS = (
    Published("qwen3-30b-a3b", "qwen3moe", 48, 48, 2048, 768, 128, 8, 1.23, 151936, 8192, 96, 40960),
    Published("qwen3-235b-a22b", "qwen3moe", 94, 94, 4096, 1536, 128, 8, 7.37, 151936, 16384, 188, 40960),
    Published("mixtral-8x7b", "llama", 32, 32, 4096, 14336, 8, 2, 1.47, 32000, 8192, 128, 32768),
    Published("gpt-oss-20b", "gpt-oss", 24, 24, 2880, 2880, 32, 4, 1.22, 201088, 8192, 24, 131072, "MXFP4"),
    Published("gpt-oss-120b", "gpt-oss", 36, 36, 2880, 2880, 128, 4, 1.55, 201088, 8192, 36, 131072, "MXFP4"),
    Published("qwen3.6-35b-a3b", "qwen35moe", 40, 40, 2048, 512, 256, 8, 1.94, 248320, 8192, 20, 262144),
    Published("qwen3-next-80b-a3b", "qwen3next", 48, 48, 2048, 512, 512, 10, 2.05, 151936, 8192, 24, 262144),
    Published("qwen3.5-122b-a10b", "qwen35moe", 48, 48, 3072, 1024, 256, 8, 5.38, 248320, 16384, 24, 262144),
    Published("glm-4.7-flash", "deepseek2", 47, 46, 2048, 1536, 64, 4, 1.84, 154880, 10240, 52.9, 202752),
    Published("glm-4.5-air", "glm4moe", 46, 45, 4096, 1408, 128, 8, 6.57, 151552, 24576, 184, 131072),
    Published("minimax-m2", "minimax-m2", 62, 62, 3072, 1536, 256, 8, 3.39, 200064, 12288, 248, 196608),
    Published("deepseek-v2-lite", "deepseek2", 27, 26, 2048, 1408, 64, 6, 1.10, 102400, 5120, 30.4, 163840),
    Published("deepseek-v3", "deepseek2", 61, 58, 7168, 2048, 256, 8, 16.19, 129280, 40960, 68.6, 163840),
    Published("olmoe-1b-7b", "olmoe", 16, 16, 2048, 1024, 64, 8, 0.37, 50304, 4096, 128, 4096),
    Published("llama-3.1-8b", "llama", 32, 0, 4096, 14336, 0, 0, 7.50, 128256, 8192, 128, 131072),
    Published("qwen3-8b", "qwen3", 36, 0, 4096, 12288, 0, 0, 7.57, 151936, 8192, 144, 40960),
)
"""Shapes: config.json of each model on its publisher's page; `always` from the same shapes, summed."""
