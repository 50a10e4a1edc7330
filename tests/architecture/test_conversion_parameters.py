"""Does every place that takes a conversion's parameters know the same ones, with the same ranges and defaults?"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, get_type_hints

from libs.client.cli_conversions import live
from libs.client.cli_voices import convert
from libs.voice.chain import Conversion
from libs.voice.conversion.settings import LIMITS, OUTPUT_RATES
from libs.voice.realtime import RealtimeSettings
from libs.voice.realtime.settings import LIMITS as LIVE_LIMITS
from services.gateway.conversion.convert import ConversionOptions
from services.inference.live import LiveStart
from services.inference.schemas import ConversionSettings

OF_THE_ENGINE = {field.name for field in dataclasses.fields(Conversion)} - {"f0_points"}
OF_THE_API = OF_THE_ENGINE | {"f0_file", "format", "output_rate"}


def limits(schema: dict[str, object]) -> tuple[object, object]:
    kinds = schema.get("anyOf", [schema])
    return next(((k["minimum"], k["maximum"]) for k in kinds if "minimum" in k), (None, None))  # type: ignore[attr-defined]


def test_gateway_and_inference_know_the_engines_parameters() -> None:
    assert set(ConversionOptions.model_fields) == OF_THE_API
    assert set(ConversionSettings.model_fields) == OF_THE_API
    assert set(convert.__annotations__) >= OF_THE_API - {"autotune_strength", "autotune_unvoiced", "proposed_pitch_hz"}


def test_ranges_and_defaults_are_the_same_everywhere() -> None:
    outer, inner = (model.model_json_schema()["properties"] for model in (ConversionOptions, ConversionSettings))
    for name, (low, high) in {**LIMITS, "output_rate": OUTPUT_RATES}.items():
        if name == "seed":
            continue  # JSON's whole numbers are safe to 2**53, so the API stops before the engine
        assert limits(outer[name]) == limits(inner[name]) == (low, high), name
    plain = Conversion()
    for name in OF_THE_ENGINE:
        assert outer[name]["default"] == inner[name]["default"] == getattr(plain, name), name


def test_the_first_message_of_a_live_conversion_has_the_engines_defaults() -> None:
    plain = RealtimeSettings()

    told = LiveStart(voice="anna", sample_rate=plain.input_rate)

    assert told.settings() == plain
    assert {field.name for field in dataclasses.fields(plain)} - set(LiveStart.model_fields) == {
        "input_rate",  # sample_rate says it
        "fill_unvoiced",
        "seed",
    }


def test_the_command_line_offers_what_a_stream_can_be_told_in_its_ranges_and_with_its_defaults() -> None:
    plain, offered = RealtimeSettings(), inspect.signature(live).parameters
    hints: dict[str, Any] = get_type_hints(live, include_extras=True)
    names = {"block": "block_seconds", "crossfade": "crossfade_seconds", "past": "extra_seconds"}
    known = {names.get(name, name) for name in offered} & set(LIVE_LIMITS)

    assert set(LIVE_LIMITS) - known == {"formant_shift", "input_rate", "seed"}
    for name, parameter in offered.items():
        field = names.get(name, name)
        if field in known:
            option = hints[name].__metadata__[0]
            assert (option.min, option.max) == LIVE_LIMITS[field], name
            assert parameter.default == getattr(plain, field), name
