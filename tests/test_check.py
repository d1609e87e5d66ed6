"""The user's own files: what is understood as it is, what settings mend, and every problem told in one go."""

import gzip

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama4rec_core import presets
from llama4rec_core.__main__ import check, main
from llama4rec_core.data import as_set
from llama4rec_core.data.check import problems
from llama4rec_core.data.prepared import prepare
from llama4rec_core.data.split import split
from llama4rec_core.llm.model import SMOLLM2, load_tokenizer

PRESET = {"data": {"name": "own", "interactions": "plays.csv", "items": "songs.csv"}}


def load(folder, more=""):
    """The preset of a folder's files, with YAML that was printed."""
    content = yaml.safe_load(yaml.safe_dump(PRESET))
    for section, settings_ in (yaml.safe_load(more) or {}).items():
        content.setdefault(section, {}).update(settings_) if isinstance(settings_, dict) else content.update(
            {section: settings_}
        )
    (folder / "mine.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return presets.load(folder / "mine.yaml")


def plays(users=4, items=20, header="user,item,rating,time", separator=","):
    lines = [header.replace(",", separator)]
    for u in range(users):
        lines += [separator.join((f"u{u}", f"s{i}", str(1 + (u + i) % 5), str(100 + i))) for i in range(items)]
    return lines


def songs(items=20, header="item,title", separator=","):
    return [header.replace(",", separator), *(f"s{i}{separator}Song {i}" for i in range(items))]


def write(folder, interactions, items, names=("plays.csv", "songs.csv")):
    for name, lines in zip(names, (interactions, items), strict=True):
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_usual_headers_separators_dates_and_gz_are_understood_as_they_are(tmp_path):
    write(tmp_path, plays(), songs())
    expected = as_set(load(tmp_path).data)
    for separator in ";\t|":
        usual = plays(header="userId,movieId,rating,timestamp", separator=separator)
        write(tmp_path, usual, songs(header="movieId,title", separator=separator))
        assert as_set(load(tmp_path).data).sha256 == expected.sha256
    dated = pd.read_csv(tmp_path / "plays.csv", sep="|")
    dated["timestamp"] = pd.to_datetime(dated["timestamp"], unit="s").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    dated.to_csv(tmp_path / "plays.csv", index=False)
    assert as_set(load(tmp_path).data).sha256 == expected.sha256
    packed = gzip.compress((tmp_path / "plays.csv").read_bytes())
    (tmp_path / "plays.csv.gz").write_bytes(packed)
    assert as_set(load(tmp_path, "data: {interactions: plays.csv.gz}").data).sha256 == expected.sha256
    (tmp_path / "plays.csv.gz").write_bytes(packed[:40])
    with pytest.raises(ValueError, match="plays.csv.gz is damaged"):
        as_set(load(tmp_path, "data: {interactions: plays.csv.gz}").data)


def test_repeated_untitled_and_rare_ones_are_left_out_where_that_is_asked_for(tmp_path):
    more = ["u0,s0,5,999", "u0,lost,3,1", "rare,s1,3,1"]
    write(tmp_path, [*plays(), *more], songs())
    kept = {}
    for which in ("first", "last"):
        mend = f"data: {{duplicates: {which}, untitled: drop, min_interactions: 3}}"
        kept[which] = as_set(load(tmp_path, mend).data)
        assert len(kept[which].interactions) == 80 and "rare" not in set(kept[which].users["user_id"])
    times = {which: each.interactions.query("user == 0 and item == 0")["time"].item() for which, each in kept.items()}
    assert times == {"first": 100, "last": 999}
    with pytest.raises(ValueError, match="no title for item 'lost'"):
        as_set(load(tmp_path, "data: {duplicates: last}").data)


def test_the_data_are_called_what_the_preset_says(tmp_path):
    write(tmp_path, plays(), songs())
    assert as_set(load(tmp_path).data).name == "plays"
    assert as_set(load(tmp_path, "data: {called: my songs}").data).name == "my songs"


def test_an_empty_rating_is_none_and_no_fault(tmp_path):
    lines = plays()
    lines[3], lines[5] = (line.replace(line.split(",")[2], "", 1) for line in ("u0,s2,3,102", "u0,s4,5,104"))
    write(tmp_path, lines, songs())
    said, well = check(load(tmp_path))
    assert well and "without a rating: 2" in said
    lines[3] = "u0,s2,bad,102"
    write(tmp_path, lines, songs())
    said, well = check(load(tmp_path))
    assert not well and "rating is no number, as 'bad' (1 times: line 4)" in said


def faulty(folder):
    """Odd headers, semicolons, dates, repetitions, items without titles, ratings above the scale, too few plays."""
    lines = plays(users=20, header="listener,track no,stars,day", separator=";")
    dated = [lines[0]]
    for line in lines[1:]:
        user, item, stars, time = line.split(";")
        dated.append(f"{user};{item};{stars};2020-01-{int(time) - 99:02d}")
    dated += ["u0;s0;4;2020-02-01", "u1;lost;4;2020-02-01", "u2;gone;4;2020-02-01", "u3;s1;9;2020-02-02"]
    dated += [f"rare{n};s{n};3;2020-01-01" for n in range(5)]
    write(folder, dated, [*songs(header="track,song title", separator=";"), "gone;"])


def test_all_faults_are_told_at_once_and_what_is_printed_mends_them_in_one_go(tmp_path, capsys):
    faulty(tmp_path)
    preset = load(tmp_path, "data: {scale: [1, 5]}")
    said, well = check(preset)
    assert not well and main(["check", str(tmp_path / "mine.yaml")]) == 1 and said in capsys.readouterr().out
    for told in (
        "plays.csv has track no for item, stars for rating, day for time, listener for user",
        "songs.csv has track for item, song title for title",
        "rating lies outside the scale (1 times: line 405)",
        "a user has an item a second time (2 times: line 402, 405)",
        "no title for an item of plays.csv (2 times: line 403, 404)",
        "5 of 25 users have fewer than the 16 interactions that rolling needs",
    ):
        assert told in said, told
    printed = said.split("In the preset:\n")[1]
    preset = load(tmp_path, printed)
    said, well = check(preset)
    assert well and "users" in said and "the most popular tenth of the items has" in said
    assert prepare(as_set(preset.data), preset).dataset.n_users == 20


def test_what_no_setting_mends_is_told_with_its_lines(tmp_path):
    lines = plays()
    lines[1], lines[3] = "u0,s0,good,100", "u0,s2,bad,yesterday"
    write(tmp_path, lines, [*songs(), "s3,Again"])
    said, well = check(load(tmp_path))
    assert not well and "In the preset" not in said
    assert "rating is no number, as 'good' (2 times: line 2, 4): mend the file" in said
    assert "but 'yesterday' (1 times: line 4): mend the file" in said
    assert "songs.csv: an item is there a second time (1 times: line 22): mend the file" in said


def test_a_protocol_that_no_user_is_long_enough_for_is_changed_for_one_that_they_are(tmp_path):
    write(tmp_path, plays(items=6), songs(6))
    said, well = check(load(tmp_path))
    assert not well and "protocol: leave-one-out" in said
    assert check(load(tmp_path, "data: {protocol: leave-one-out}"))[1]


def test_data_without_ratings_are_refused_for_rating_prediction_only(tmp_path):
    lines = [",".join(line.split(",")[:2]) for line in plays()]
    write(tmp_path, lines, songs())
    preset = load(tmp_path)
    dataset = as_set(preset.data)
    with pytest.raises(ValueError, match=r"has no column 'rating'.*rating: null.*backbones: \[LightGCN, SASRec\]"):
        prepare(dataset, preset)
    preset = load(tmp_path, "{backbones: [LightGCN, SASRec], out_of_fold: {rating: null}}")
    assert prepare(dataset, preset).histories.scale == ("1",)
    with pytest.raises(ValueError, match="out_of_fold.rating is null, so DeepFM cannot be among the backbones"):
        load(tmp_path, "out_of_fold: {rating: null}")


def test_the_survey_by_hand(tmp_path):
    write(tmp_path, plays(users=3), songs())
    said, well = check(load(tmp_path))
    assert well and "the most popular tenth of the items has 10% of the interactions" in said
    assert "ratings: 1: 12, 2: 12, 3: 12, 4: 12, 5: 12" in said
    assert "rolling: 0 of 3 users have too few" in said
    dataset = as_set(load(tmp_path).data)
    assert f"SHA-256 of the split is {split(dataset, 'rolling').sha256}" in said


def test_titles_are_counted_in_the_tokens_that_the_llm_reads(tmp_path):
    titles = ["Blue", "Blue", "Blue Moon", *(f"Blue {i}" for i in range(3, 20))]
    write(tmp_path, plays(users=3), ["item,title", *(f"s{i},{title}" for i, title in enumerate(titles))])
    said, _ = check(load(tmp_path))
    read = load_tokenizer(SMOLLM2)
    assert [read.tokenize(f"{title}\n") for title in ("Blue", "Blue Moon", "Blue 19")] == [
        ["Blue", "Ċ"], ["Blue", "ĠMoon", "Ċ"], ["Blue", "Ġ", "1", "9", "Ċ"]
    ]  # fmt: skip
    # 2, 2, 3, seven of 4 and ten of 5 tokens; told apart by 2, 2, 2, 3 or (1 and 10 to 19 share theirs) 4
    assert "tokens of a title: 4.5 (at most 5), of the part that no other begins with: 3.5 (at most 4)" in said
    assert "2 of 20 titles are another's too" in said
    (tmp_path / "unknown.yaml").write_text(yaml.safe_dump(PRESET | {"llm": str(tmp_path)}))
    said, well = check(presets.load(tmp_path / "unknown.yaml"))
    assert well and "titles were not counted in tokens: " in said


hostile = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=300).map(str.encode),
    st.lists(
        st.lists(st.sampled_from(["u", "1", "", "nan", "1e999", "-3", "4.5", "é", '"', "\x00", "2020-01-01", "x" * 99]),
                 min_size=1, max_size=5), max_size=8,
    ).map(lambda rows: "\n".join(["user,item,rating,time", *map(",".join, rows)]).encode()),
)  # fmt: skip


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hostile, hostile)
def test_any_two_files_give_rows_or_one_clear_message(tmp_path, first, second):
    (tmp_path / "plays.csv").write_bytes(first)
    (tmp_path / "songs.csv").write_bytes(second)
    preset = load(tmp_path)
    said, well = check(preset)
    assert said and "Traceback" not in said
    try:
        dataset = as_set(preset.data)
        assert len(dataset.interactions) and np.isfinite(dataset.interactions["rating"]).all()
    except ValueError as error:
        assert str(error) and not well


def test_columns_that_only_hold_a_known_word_inside_another_are_no_fault(tmp_path):
    lines = [line.replace(",", ";") for line in plays(header="user,item,start,weekday")]
    write(tmp_path, lines, songs())
    assert problems(load(tmp_path).data) == []
    write(tmp_path, plays(header="readerID,songs,stars,time"), songs(header="song,songName"))
    (said,) = {str(each.mend) for each in problems(load(tmp_path).data)}
    assert "readerID" in said and "['songs', 'song']" in said and "stars" in said and "songName" in said


def test_the_file_of_users_and_empty_items_are_looked_at(tmp_path):
    write(tmp_path, plays(), [*songs(), ",Nameless"])
    (tmp_path / "users.csv").write_text("user,age\nu1,3\nu1,4\n,5\n", encoding="utf-8")
    found = [str(each) for each in problems(load(tmp_path, "data: {users_file: users.csv}").data)]
    for said in ("songs.csv: item is empty", "users.csv: user is empty", "users.csv: a user is there a second time"):
        assert len([line for line in found if line.startswith(said)]) == 1
    assert len(found) == 3
    (tmp_path / "users.csv").write_text("who,age\nu1,3\n", encoding="utf-8")
    found = [str(each) for each in problems(load(tmp_path, "data: {users_file: users.csv}").data)]
    assert found[1] == "users.csv has no column for user (it has: who, age): mend the file"


def test_users_are_counted_after_rare_items_are_left_out(tmp_path):
    lines = [*plays(items=16), "u4,s0,1,1", "u4,rare,1,2", *(f"u4,s{i},1,{i + 2}" for i in range(1, 15))]
    write(tmp_path, lines, [*songs(), "rare,Rare"])
    (found,) = problems(load(tmp_path, "data: {min_interactions: 2}").data)
    assert found.what == "1 of 5 users have fewer than the 16 interactions that rolling needs"
    assert found.mend == {"min_of_user": 16}
