// share, within a function: element i of part0, part1, …; with one lane, part i itself.
let b{i} = part{i};
