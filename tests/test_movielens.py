"""MovieLens files to a Dataset: made-up files in each layout, every error, real ML-100K."""

import hashlib

import pandas as pd
import pytest

from llama4rec_core import paths
from llama4rec_core.data import SourceError, load, movielens, read_ml1m, read_ml100k, split, table_1
from llama4rec_core.data.movielens import ML100K_GENRES, ML100K_SHA256, movie_title

INTERACTIONS = "10\t2\t3\t100\n9\t2\t4\t90\n10\t1\t5\t80\n9\t1412\t1\t70\n10\t267\t2\t60\n"


def flags(*genres: str) -> str:
    return "|".join("1" if genre in genres else "0" for genre in ML100K_GENRES)


@pytest.fixture
def official(tmp_path):
    folder = tmp_path / "official"
    folder.mkdir()
    (folder / "u.data").write_text(INTERACTIONS)
    (folder / "u.item").write_text(
        f"1|Postino, Il (1994)|01-Jan-1994||http://x|{flags('Drama', 'Romance')}\n"
        f"2|Misérables, Les (1995)|01-Jan-1995||http://x|{flags('Drama')}\n"
        f"267|unknown||||{flags('unknown')}\n"
        f"1412|Land Before Time III (1995) (V)|01-Jan-1995||http://x|{flags('Animation')}\n",
        encoding="latin-1",
    )
    (folder / "u.user").write_text("9|29|M|student|01002\n10|53|F|lawyer|90703\n")
    return folder


@pytest.fixture
def recbole(tmp_path):
    folder = tmp_path / "recbole"
    folder.mkdir()
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    (folder / "ml-100k.inter").write_text(header + INTERACTIONS)
    (folder / "ml-100k.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "1\tPostino, Il\t1994\tDrama Romance\n2\tMisérables, Les\t1995\tDrama\n"
        "267\tunkonwn\tunkonwn\tunknown\n1412\tLand Before Time III (1995)\tV\tAnimation\n",
        encoding="utf-8",
    )
    (folder / "ml-100k.user").write_text(
        "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
        "9\t29\tM\tstudent\t01002\n10\t53\tF\tlawyer\t90703\n"
    )
    return folder


def test_ml100k_by_hand(official):
    dataset = read_ml100k(official, sha256=None)
    assert dataset.users["user_id"].tolist() == ["9", "10"]  # by number, not by text
    assert dataset.items["item_id"].tolist() == ["1", "2", "267", "1412"]
    assert dataset.items["title"].tolist() == ["Il Postino", "Les Misérables", "unknown", "Land Before Time III"]
    assert dataset.items["year"].tolist() == ["1994", "1995", "", "1995"]
    assert dataset.items["genres"].tolist() == ["Drama|Romance", "Drama", "", "Animation"]
    assert dataset.users.iloc[1].to_dict() == {"user_id": "10", "age": "53", "gender": "F", "occupation": "lawyer"}
    assert dataset.interactions.to_numpy().tolist() == [  # file order
        [1, 1, 3, 100], [0, 1, 4, 90], [1, 0, 5, 80], [0, 3, 1, 70], [1, 2, 2, 60],
    ]  # fmt: skip
    assert dataset.interactions.dtypes.astype(str).tolist() == ["int32", "int32", "float32", "int64"]
    assert (dataset.name, dataset.scale, dataset.source) == ("ml-100k", (1.0, 5.0), "folder")


def test_both_layouts_give_the_same_dataset(official, recbole):
    one, other = read_ml100k(official, sha256=None), read_ml100k(recbole, sha256=None)
    pd.testing.assert_frame_equal(one.interactions, other.interactions)
    pd.testing.assert_frame_equal(one.items, other.items)
    pd.testing.assert_frame_equal(one.users, other.users)
    assert one.sha256 == other.sha256 == hashlib.sha256(INTERACTIONS.encode()).hexdigest()


def test_changed_ml100k_is_refused_and_told_how_to_load_it(official):
    with pytest.raises(ValueError, match=f"not the published ML-100K .*{ML100K_SHA256}.*read_own"):
        read_ml100k(official)


@pytest.mark.parametrize(
    "text, title, year",
    [
        ("Usual Suspects, The (1995)", "The Usual Suspects", "1995"),
        ("Great Day in Harlem, A (1994)", "A Great Day in Harlem", "1994"),
        ("American in Paris, An (1951)", "An American in Paris", "1951"),
        ("Enfer, L' (1994)", "L'Enfer", "1994"),
        ("Promise, The (Versprechen, Das) (1994)", "The Promise (Das Versprechen)", "1994"),
        ("Beans of Egypt, Maine, The (1994)", "The Beans of Egypt, Maine", "1994"),
        ("Paris, Texas (1984)", "Paris, Texas", "1984"),
        ("2001: A Space Odyssey (1968)", "2001: A Space Odyssey", "1968"),
        ("Shadow and Light (1996) ", "Shadow and Light", "1996"),
        ("Land Before Time III (1995) (V)", "Land Before Time III", "1995"),
        ("1-900 (1994)", "1-900", "1994"),
        ("unknown", "unknown", ""),
    ],
)
def test_movie_title(text, title, year):
    assert movie_title(text) == (title, year)


def test_latin1_line_characters_do_not_end_a_line(official):
    text = (official / "u.item").read_bytes().replace(b"Time III", b"Time\x85III")
    (official / "u.item").write_bytes(text.replace(b"\n", b"\r\n"))
    assert len(read_ml100k(official, sha256=None).items) == 4


@pytest.mark.parametrize(
    "line, message",
    [
        ("10\t3\t4", r"u.data, line 6 has 3 fields; it needs 4"),
        ("10\t1412\tx\t5", r"u.data, line 6, column 'rating': 'x' is not a number"),
        ("10\t1412\tnan\t5", r"u.data, line 6, column 'rating': 'nan' is not a number"),
        ("10\t1412\t6\t5", r"u.data, line 6, column 'rating': 6 lies outside the scale 1 to 5"),
        ("10\t1412\t4\t5.5", r"u.data, line 6, column 'time': '5.5' is no whole number"),
        ("10\t1\t4\t5", r"u.data, line 6: user '10' and item '1' are there a second time \(first: line 3\)"),
        ("10\t\t4\t5", r"u.data, line 6, column 'item' is empty"),
        ("10\t7\t4\t5", r"u.item has no title for item '7' \(.*u.data, line 6\)"),
    ],
)
def test_each_bad_interaction_is_named(official, line, message):
    with (official / "u.data").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=message):
        read_ml100k(official, sha256=None)


def test_recbole_file_without_a_column(recbole):
    path = recbole / "ml-100k.inter"
    path.write_text(path.read_text().replace("rating:float", "stars:float"))
    with pytest.raises(ValueError, match="ml-100k.inter has no column 'rating' .it has: user_id, item_id, stars"):
        read_ml100k(recbole, sha256=None)


def test_empty_and_unreadable_files(official, recbole):
    (official / "u.data").write_text("\n")
    with pytest.raises(ValueError, match="u.data is empty"):
        read_ml100k(official, sha256=None)
    (recbole / "ml-100k.item").write_bytes("item_id:token\tmovie_title\u00e9".encode("latin-1"))
    with pytest.raises(ValueError, match=r"ml-100k.item is not utf-8 text \(byte 25\)"):
        read_ml100k(recbole, sha256=None)


@pytest.fixture
def ml1m(tmp_path):
    (tmp_path / "ratings.dat").write_text("2::10::5::100\n1::10::3::50\n1::9::4::60\n")
    movies = "9::Café (1990)::Comedy|Drama\n10::Heat, The (1995)::Action\n11::Unseen (1999)::Horror\n"
    (tmp_path / "movies.dat").write_text(movies, encoding="latin-1")
    (tmp_path / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::70072\n")
    return tmp_path


def test_ml1m_by_hand(ml1m):
    dataset = read_ml1m(ml1m, sha256=None)
    assert dataset.items.to_numpy().tolist() == [
        ["9", "Café", "1990", "Comedy|Drama"],
        ["10", "The Heat", "1995", "Action"],
    ]  # nobody rated item 11
    assert dataset.users.to_numpy().tolist() == [
        ["1", "under 18", "F", "K-12 student"],
        ["2", "56+", "M", "self-employed"],
    ]
    assert dataset.interactions["user"].tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match="ratings.dat is not the published file: SHA-256 506d.* found; .*read_own"):
        read_ml1m(ml1m, source="archive")
    with pytest.raises(ValueError, match="and it has 3 ratings, 2 users, 2 rated films; take the unchanged ML-1M"):
        read_ml1m(ml1m)
    digest = hashlib.sha256((ml1m / "ratings.dat").read_bytes()).hexdigest()
    assert read_ml1m(ml1m, sha256=digest).sha256 == dataset.sha256


def test_an_ml1m_folder_of_other_bytes_but_the_same_counts_is_taken_with_a_warning(ml1m, monkeypatch):
    monkeypatch.setattr(movielens, "ML1M_COUNTS", (3, 2, 2))
    with pytest.warns(UserWarning, match="is not the published file: .* it is taken"):
        assert len(read_ml1m(ml1m).interactions) == 3
    with pytest.raises(ValueError, match="is not the published file"):
        read_ml1m(ml1m, source="archive")


def test_unknown_name():
    with pytest.raises(ValueError, match="'ml-10m' is unknown; choose ml-100k"):
        load("ml-10m")


@pytest.mark.data
def test_real_ml100k_is_the_paper_s():
    try:
        dataset = load("ml-100k")
    except SourceError as error:
        pytest.skip(str(error))
    row = table_1(dataset).iloc[0]
    assert row[["users", "items", "interactions"]].tolist() == [943, 1682, 100_000]
    assert row["min_per_user"] == 20 and dataset.sha256 == ML100K_SHA256
    assert dataset.users["user_id"].tolist() == [str(number) for number in range(1, 944)]
    assert dataset.items["item_id"].tolist() == [str(number) for number in range(1, 1683)]
    assert dataset.items["title"].iloc[[0, 11, 13, 266, 542]].tolist() == [
        "Toy Story", "The Usual Suspects", "Il Postino", "unknown", "Les Misérables",
    ]  # fmt: skip
    assert dataset.items["year"].str.fullmatch(r"\d{4}").sum() == 1681
    assert dataset.items["genres"].iloc[0] == "Animation|Children's|Comedy"
    assert set(dataset.users["gender"]) == {"F", "M"} and dataset.users["occupation"].nunique() == 21


@pytest.mark.data
def test_the_data_card_tells_the_counts_and_splits_that_are_measured():
    try:
        dataset = load("ml-100k")
    except SourceError as error:
        pytest.skip(str(error))
    card = (paths.ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    counts = dataset.n_users, dataset.n_items, len(dataset.interactions)
    assert ", ".join(map(str, counts)) in card and dataset.sha256 in card
    for protocol, share in (("rolling", "6% of the rolling"), ("leave-one-out", "44% of those of leave-one-out")):
        parts, turned = split(dataset, protocol), split(dataset, protocol, "reverse")
        both = parts.test.merge(turned.test, on=["user", "item"])
        others = 1 - len(both) / len(parts.test)
        assert parts.sha256 in card and share in card and share.startswith(f"{others:.0%}")
