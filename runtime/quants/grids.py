"""The codebooks of the IQ types: which 8 (IQ1, IQ2) or 4 (IQ3) magnitudes an index stands for.

The tables are those of llama.cpp (ggml-common.h iq2xxs_grid, iq2xs_grid, iq2s_grid, iq3xxs_grid, iq3s_grid, iq1s_grid; MIT
licence, copyright 2023-2026 The ggml authors). Each value is written as its place in `levels`, in 2 bits (4 for IQ3),
the lowest first; the first bytes of all entries, then the second bytes, and so on; deflated, in base 85.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import zlib

import numpy as np
import numpy.typing as npt

Entries = npt.NDArray[np.int8]


@dataclasses.dataclass(frozen=True)
class _Grid:
    """`entries` rows of `width` values, each one of `levels`."""

    entries: int
    width: int
    levels: tuple[int, ...]
    packed: str

    def unpack(self) -> Entries:
        raw = np.frombuffer(zlib.decompress(base64.b85decode(self.packed)), np.uint8)
        bits = 2 if len(self.levels) <= 4 else 4
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        places = raw.reshape(-1, self.entries).T[:, :, None] >> shifts & np.uint8((1 << bits) - 1)
        values: Entries = np.array(self.levels, np.int8)[places.reshape(self.entries, self.width)]
        return values


@functools.cache
def grid(name: str) -> Entries:
    """(entries, 8 or 4): the codebook of that name."""
    values = _GRIDS[name].unpack()
    values.flags.writeable = False
    return values


_GRIDS = {
    "IQ2_XXS": _Grid(
        256,
        8,
        (8, 25, 43),
        "c-n2x&2EA~5C`ya0}XHjqXv3Hf(`X4Rs#k-fl*>Tfx*PS#X`VXPiQdFn;H)7TXt95#zTLX{g|2kX94koq%?HH>h^4J7R4mpUTd7(#Mu#$k<xA3#C"
        "<nRvZ4Yc=!18%6J?xLzzYqF&Wtx4Mh(`7!>l-fpnG#-I&|#}iMoImE#U<CvkyqJBa*(lfY@CCy|@tc(xwNMhPVL>0X-slO?HD7eSw_nCa_)yW>M-"
        "CASjwnHeA2j6?>^R0Y!_kK<g`*sv+=lJ?qnyUdpLhx&0!9K`G)8aSA7!_|hT{7`C72$je1gJr4d;yF(QBi2w1#2!BLTlH^~?O}*Z@X*OFemC-cqS"
        "-)$y4Z~zQoz9D8SzY|7$MhMSah!q645`t`yYqd2Jef>`U`D;oLn?|Ei#T2`mn*^~Ns?wad7iJ=>&?fuV0OEGS(b<6>3lw4uGQz)H_8fcT>",
    ),
    "IQ2_XS": _Grid(
        512,
        8,
        (8, 25, 43),
        "c-no?&yMj>6aesJf^@791gmP0@)WmH6RcXHVOAwfOrN4erDla7Sd|#TQ-0^(@})%Pw`p_k`E$>Ow*VK4#1bi9$cd8tQB~^AR;Oo<EPKA(IzE5!Js"
        "gcE)0r$Ol`CpP9}LGcz@kWumt>`B{@hdU8Jhl((J_7gaGsRL;7;Om7;Kr&6~kmW1zub`&n<N0p@q3zV@8<h|3g)!N81vJRq+!gjR^$4)XRMYt#Rm"
        "ir4NF6#=imqslN54Pr!xvrhOR9IDTY5-MxmB`;U{Y1MQF1ER=F@gP|<hK}c5UjB=w35n1{6-^xUqg9mX^0-0`^A^LC+oM~qUdx%NOHcd(vt!#8B7"
        "s%EYkiafSpOFh<E4N9JHW{6-Y;Uy<yg72{9?>|_ry&0(4d8O0m=P3AdreP>HU^=mO(B5KTbL~*^;C`Hi{ZXSM{S?*uV^}C)!&48L3Gak@kA`nukb"
        "hDOK)EOR{|bE7x(0y2~pu!B3@A@<`qYYL?Y=*rBdlM@0DQ$l%;YgpU;b~LZL{Jmn5$eBYTyZ4^(kgshZ-UGWB}BannSarnRVcyZx!(bh_Pcuh&O|"
        "!M9-;=A)r&#Efq&%bHAV*Yt;)G4uI+u~<^8)oQ)jY<D}ywcqa#%<*_Sotew!az+0Dz8&uS",
    ),
    "IQ2_S": _Grid(
        1024,
        8,
        (8, 25, 43),
        "c-n>2Pml3H7y$4gY-~@psm<DxZLHu^3_+F?g5ZRx;8T>S(32H}_q1);;8VUc)6q_~y1$#uJb&hS3iyK|E-bu8W8!BrlPeU<)q1nrAB^OwviRQooU"
        "XpW(=-1PdHaaNZ2qfKYqUDja57u1x7rb)=&%q=lfb&Hs2kn7o=D+<5{c+Zli7T^+U|`Qqas_7mLt&-i0gDv4I@9knr5yl8`Ko3K`*XASP+xx@_{L"
        "CHrvD9&hJW#&f2~Js*E0)uheXnA2i8Kgmg*<k;#>1V_>+s+aaA2IvnW%9yV;RLYe!rN?(LyXg&@-C|6#n=UY0rVgnh4!4?RH1@ueBNw%EWU#Pbh-"
        "{~Z*EtrF#b8vYb4va&l`G+%ej$&-ijtt|3r^=q&PItI_rWco;cuaaEyB=HVQT7D1ez(c6KvcmarD4vV4tPTvV3WYoa1Br|ytD`DtY%zB+at?sc4f"
        "u*c$h{|9~Thh$X3iIU3)~E;!}_=5dC?eBsSYqo#wMWn_Ow*etz#~xYt0TPo8@L#VWeX2_pWs^edG7_)D6S4~d7%BZyYGq+XkcxR{t+T*04w9{f&$"
        "zXZKJ*@Yf?w&N(?TiDBsjo=~T;??qYFUojFVs1X{L{r@9(~`iFHz_2IL2nrkS-YI4yqf~!%c009A!QF07gbBmMcvZCnv53GMmqPpj2_lENru5-h>"
        "b?$vFu{vG^J)v3S*8fs3oFeD~E4tjcpiPVz=AviNoRW@5iEP`puCzoqo^f^W}0i{0C*??!N",
    ),
    "IQ3_XXS": _Grid(
        256,
        4,
        (4, 12, 20, 28, 36, 44, 52, 62),
        "c-l?PyLy5^5Cz~}5NQEXT0qct0fm;kErNvB3u=oi<oPpfV)XB3=6q)mH<4$WZaVREz`UdwHgTgvhhPm$FW5H&7A3{*W<lCOM0Cq-E2)d*#L`RRZg"
        "vIYAk1b$5vM!(4GV>C<qyFO;WpFFl@nuL7z39(l*{lj2x}~<UB9jPb<|^ik>RnhxUz~ghd#TcvPX6lP0d>MFWzyYZG)=m^&mXn#B8!}?WBWNqC_2"
        "<u4>h#TqP~nlyeFzw$i*cPFhR+R46^(-~~}~%T=gkC7OFjBSM@-&<Fg+ec+i1BY^2t97%8TNclBmR8^gWg{J8*#y|6AIkGGptO5DsFfQYHo6Tkme"
        "BTd(kcr|^lB8*xW!VlCMX?8ESyt5n)b&@>9Kq>yK3^{F^?JMCJLd7Als-Y<55w^N17X)$8~",
    ),
    "IQ3_S": _Grid(
        512,
        4,
        (1, 3, 5, 7, 9, 11, 13, 15),
        "c-nQ)IfJS&5C`xiz|wN5EeR?ur?y;b3*yltt8NP(yI=nepsf4$y<eG0X8sw3i6Ba{q78LAaf4{F%JQPDZ(j%#UXlm8VcLFjI9(8id+Lx*EU&#(T{"
        ");S+npup`lG%hbwtNb5N8$PbvAXw#p-;0lT~|NqwXZ#bUoF<2;O<K&F%nQxi?9pmK&z)>JuqYYMN||3+7=QH7zeJD^5@}+l`j#2E&=<Wct`lmY9<"
        "i>O&ctKsNXSHB8G1;{^n&u6INvb;KsN7iG|l8rD3__w@}CL1trUm!7ex8;&1d?!3(AL0%yu((OTzr&gSjCMSH)kCIjPUc(5D8bNV^kh<fg7*fNuF"
        "kWq85kqFLizAkliIeQE!w_>i^AWE=PA5z&BFZYW{5ab}<^gqseOd9c3S00I8P9`S5NWA;g*33@j7S;_lGXZrgP96-E=V@4Sx!XBOtRAz^SZNCrdb"
        "{lo<T<2Es$;=6))PtCNvsM;u3LQAq29Dcu{AwU{ex#94|004XKq8$Ir2#>M4tejs6S&h5W+(!1si2Z!Pgj`bGXhd7-}0dV|ieF?!PfjecV<jBn$o"
        "NoU$JTh>o@&uO_Yya)ebHk&tsUf7FzaVKdlz;d}<HPT+zS-0|sO=Amo`~ALX9YEQ72gl>_1kUG=kLsyzTsl{9YuxXjpI?6f_aCv~",
    ),
    "IQ1_S": _Grid(
        2048,
        8,
        (-1, 0, 1),
        "c-p0vQIF|f6vYvQd19iXo|sH!%%?z*;R!+T!~{{F;u2(dLR!HS6K$^fly~jZGJ3V#`Tu{9vYoTfT5Ipx94^m;pNl-byk?5!YUkJRV<zuDe}6e${y"
        ">lq3(0J*RB5!@-QIX1trVNX^PpGP+agsj<PFuMT1e(9jdo|TQS45an+t{GiA=swELW=a=6k2tA1vhcc7IURV}MVl3#Ce}+3Jcoc5`v+MGNSFe-@I"
        "3Vx`p<arwq@dkckQz0#*urVEu?tKFg6J$i6^eUDry`W&Y&O012}XesXx)N6v?Rco}n>{)iVH^7DXXe^n@zU5iV=y)`pOY(X{Js%ye2Y-MI@{uRu<"
        "u#ekWVI8aOs5MSMrdWekmS{7yZhAM9}I<~u|z7J!GV=(t&Yl`*q_Xn^5N)*Sm|sI{WhA=mPAm{Y&a@VJ-ffr?DVILrM%v&M{n>sM&;<3DYn|`N(g"
        "5um=cO68V<?fWNK|Zhivw5i>vj{fIMUR!e9X}VM34&o4w-YqHv8mAOYC>@qG2@@;&n8Z?h$iCiCru5oLBco#&;i=`{8tTzp`LoiDyHHYl)5QHV=b"
        "8+rAp2^P=j`Zp*sxN9lz_Ma{mF9fkIP9??8@u#vD3)W=H%8vH4O9JyK$I{27?~3G+<`87EyU6e`!jVX2-VhJX@xgc|At0*D&xM6lj^&BDLn^x555"
        "52eDu!I^fqL(B`;+NXUad)`AWWiAi4u!|mmGc8^@ISu$y8qN;HS&uWqpRwXzb<GYKir#C2BZkt?raByPKVo%A8_3##=Yr0}Uvh5Y_XT%j=JAwBA`"
        "JVKW_p@P64H)Q!*oNZQ~qAr?<0k+kgF_q9#B7XclN##1fI>kS)L8~*L~z+4PSB>IFuzr<-wa{0@a(edPCiezm+74`R#-3P5+b)RaGs@)lqPwNYx1"
        "e2!^##8Nf#p&U~5C~r9*aR`JXC(G^uZ6dOpD9J+V5Mjwiaw#9%Ik1ugks3;5Aum*7Nt#$j^ansC}?E79yQpASI?IcJNj^BJ2A+g6Ql)bLeE2d=z$"
        "I|7l96m)AKN`J?x{IguZtN^^2ZHdlT7Nt9GZ4Lu#NoWYhLxr#~FcWLhl#U?`bpn*btCr1e%k4-M`%j!l3mMtcBiP%x*4tynByRMU<v(&iSWjh&Ln"
        "?$>t<oTlMocBp>s)O?`=2fF?7VtY6rnat3k;&%^jHi_CY!r^1%RxVdBhdjj7=L0Vj`}znuSt`Ozj7&if^k_n%pd~{KMBj6GoU}UP52%kNP8n*kYK"
        "byrgGoLXqNosmHO<k-VtLxgn0T1LN3<}N*fb7D(-{irVp1SWvcd#p1kuwz9^nX0`#C5y?Sm0S+wN5tCukeI#YWX2Lj79>FZ+yUkw^+EW_PtgrH{W"
        "_isV6|OjR_7W9|M}JeARQ2hAldnl*IAXCj@=QwW;xlR2C5b7+jW2Ov(e0HeC%e05QBuCQ5QH^*Ux^Agt`+<)OQ#e2nr1wIq});wMjxC{3ag7*lSz"
        "*`f(B4S0<geP;JO%N=I8F?`ye$A^XiN8qRC1oIOMdqK$-sa7O+<o%j6mC)c0VNB{KcMn|sQwpfH>v*{jT<ztXj$@ZpnadtUAlMZT_WD1f5k5g1{M"
        "rW8C@{G$>f?3E2bvQOqrXoxXtnk$r|~GtZuNrVsn?Rk)1hv6FyBj7*VWH&G~J{(ZH7pe*h3@P4N",
    ),
}
