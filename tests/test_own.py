"""The user's own files to a Dataset: by hand, parquet as CSV, every error."""

import hashlib

import pandas as pd
import pytest

from llama4rec_core.data import own as own_module
from llama4rec_core.data import read_own


@pytest.fixture
def own(tmp_path):
    interactions, items = tmp_path / "mine.csv", tmp_path / "things.csv"
    interactions.write_text("user,item,rating,time\nann,b,3.5,2\nbob,a,1,1\nann,a,5,1\n")
    items.write_text('item,title,colour\na,"Apple, red",red\nb,Pear,green\nc,Unseen,\n', encoding="utf-8-sig")
    return interactions, items


def test_own_csv_by_hand(own):
    dataset = read_own(*own)
    assert dataset.name == "mine" and dataset.source == "own" and dataset.scale == (1.0, 5.0)
    assert dataset.items.to_numpy().tolist() == [["a", "Apple, red", "red"], ["b", "Pear", "green"]]
    assert dataset.users.columns.tolist() == ["user_id"]
    assert dataset.sha256 == hashlib.sha256(b"ann\tb\t3.5\t2\nbob\ta\t1\t1\nann\ta\t5\t1\n").hexdigest()


def test_own_parquet_gives_the_same_as_csv(own, tmp_path):
    frame = pd.DataFrame({"user": [2, 1, 2], "item": [7, 7, 5], "rating": [3, 4, 5], "time": [10, 20, 30]})
    things = pd.DataFrame({"item": [5, 7], "title": ["five", "seven"], "price": [1.5, None]})
    frame.to_parquet(tmp_path / "i.parquet")
    things.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "i.csv", index=False)
    things.to_csv(tmp_path / "t.csv", index=False)
    users = tmp_path / "users.csv"
    users.write_text("user,age\n2,30\n")
    parquet = read_own(tmp_path / "i.parquet", tmp_path / "t.parquet", users, scale=(1, 5))
    text = read_own(tmp_path / "i.csv", tmp_path / "t.csv", users, scale=(1, 5))
    pd.testing.assert_frame_equal(parquet.interactions, text.interactions)
    pd.testing.assert_frame_equal(parquet.items, text.items)
    assert parquet.sha256 == text.sha256
    assert parquet.items["price"].tolist() == ["1.5", ""]
    assert parquet.users["age"].tolist() == ["", "30"]


@pytest.mark.parametrize(
    "which, text, message",
    [
        (0, "", "mine.csv is empty"),
        (0, "user,item,rating\n", "mine.csv is empty"),
        (0, "person,item,rating\nann,a,1\n", r"mine.csv has no column 'user' \(it has: person, item, rating\)"),
        (0, "user,item,item,rating\nann,a,a,1\n", "mine.csv names a column twice"),
        (0, "user,item,rating\nann,a,1\nbob,a\n", "mine.csv, line 3 has 2 fields; it needs 3"),
        (0, 'user,item,rating\n"an\nn",a,1\nbob,a,good\n', "mine.csv, line 4, column 'rating': 'good' is not a number"),
        (0, "user,item,rating\nann,a,-1\n", "mine.csv, line 2, column 'rating': -1 lies outside the scale 1 to 5"),
        (0, "user,item,rating,time\nann,a,1,1.1.2020\n", "line 2, column 'time': '1.1.2020' is no whole number"),
        (0, "user,item,rating\nann,a,1\nann,a,2\n", "mine.csv, line 3: user 'ann' and item 'a' are there a second"),
        (0, "user,item,rating\nann,z,1\n", r"things.csv has no title for item 'z' \(.*mine.csv, line 2\)"),
        (1, "item,title\na,\nb,Pear\n", r"things.csv has no title for item 'a' \(.*mine.csv, line 3\)"),
        (1, "item,called\na,Apple\n", "things.csv has no column 'title'"),
        (1, "item,title\na,Apple\nb,Pear\na,Other\n", "things.csv, line 4: item 'a' is there a second time"),
        (1, "item,title,item_id\na,Apple,1\nb,Pear,2\n", "both a column 'item' and a column 'item_id'"),
    ],
)
def test_each_bad_own_file_is_named(own, which, text, message):
    own[which].write_text(text)
    with pytest.raises(ValueError, match=message):
        read_own(*own, scale=(1, 5))


def test_own_file_of_another_kind_encoding_or_place(own, tmp_path):
    with pytest.raises(ValueError, match="ends in '.xlsx'.*csv or .parquet"):
        read_own(tmp_path / "a.xlsx", own[1])
    with pytest.raises(ValueError, match="none.csv cannot be read: No such file"):
        read_own(tmp_path / "none.csv", own[1])
    own[1].write_bytes("item,title\na,Müsli\n".encode("latin-1"))
    with pytest.raises(ValueError, match="things.csv is not utf-8 text"):
        read_own(*own)
    (tmp_path / "x.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match="x.parquet is not readable as parquet"):
        read_own(tmp_path / "x.parquet", own[1])


LINES = ["userId,item,rating,timestamp", "007,a,4.5,10", '8,"b, c",,20', "8,a,1,30"]
FAULTS = {
    "as it should be": [],
    "dates": ["9,a,3,2020-01-02"],
    "a field too many": ["9,a,3,40,1"],
    "an empty line": ["", "9,a,3,40"],
    "a line break in a field": ['9,"a\nb",3,40'],
    "a word for a number": ["9,a,good,40"],
    "a time with a fraction": ["9,a,3,4.5"],
    "a repetition": ["8,a,2,40"],
    "no user": [",a,2,40"],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_large_file_is_read_as_a_small_one_and_its_faults_are_told_alike(tmp_path, monkeypatch, fault):
    files = tmp_path / "plays.csv", tmp_path / "songs.csv"
    files[0].write_text("\n".join([*LINES, *FAULTS[fault]]) + "\n")
    files[1].write_text('item,title\na,A\n"b, c",BC\n"a\nb",AB\n')
    found, large = [], []
    read = own_module._read_large
    monkeypatch.setattr(own_module, "_read_large", lambda *how: large.append(read(*how)) or large[-1])
    for size in (10**9, 0):
        monkeypatch.setattr(own_module, "LARGE", size)
        try:
            found.append(read_own(*files))
        except ValueError as error:
            found.append(str(error))
    small, other = found
    if isinstance(small, str):
        assert small == other
    else:
        pd.testing.assert_frame_equal(small.interactions, other.interactions)
        assert small.sha256 == other.sha256 and small.users.equals(other.users) and small.items.equals(other.items)
    as_columns = large[0] is not None  # of plays.csv; songs.csv has a line break in a field
    assert as_columns == (fault in ("as it should be", "dates", "a word for a number", "a time with a fraction",
                                    "a repetition"))  # fmt: skip
    if fault == "as it should be":
        assert set(small.users["user_id"]) == {"007", "8"} and small.interactions["rating"].isna().sum() == 1


def test_a_named_column_wins_over_one_that_has_our_name(tmp_path):
    plays, songs = tmp_path / "plays.csv", tmp_path / "songs.csv"
    plays.write_text("user,user_id,item,time,when\nx,1,a,7,8\ny,2,b,7,9\n")
    songs.write_text("item,title\na,A\nb,B\n")
    found = read_own(plays, songs, columns={"user": ("user_id",), "time": ("when",)})
    assert found.users["user_id"].tolist() == ["1", "2"] and found.interactions["time"].tolist() == [8, 9]


def test_a_missing_column_is_named_also_where_users_with_few_interactions_are_left_out(tmp_path):
    plays, songs = tmp_path / "plays.csv", tmp_path / "songs.csv"
    plays.write_text("who,item\n1,a\n")
    songs.write_text("item,title\na,A\n")
    with pytest.raises(ValueError, match="plays.csv has no column 'user' .it has: who, item."):
        read_own(plays, songs, min_of_user=16)


def test_ids_that_differ_by_blanks_are_one_where_the_last_of_several_interactions_is_kept(tmp_path):
    plays, songs = tmp_path / "plays.csv", tmp_path / "songs.csv"
    plays.write_text("user,item,rating\n1,a,2\n1 , a,5\n")
    songs.write_text("item,title\na,A\n")
    assert read_own(plays, songs, duplicates="last").interactions["rating"].tolist() == [5]
